"""Tasks that ask once and read the answer in the text: all that they need beside questions is a scorer."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.questions import Question, Score
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import QuestionTask

_log = get_logger(__name__)
_Each = TypeVar("_Each")

Scorer = Callable[[Question, str], Score]
"""What a text is worth as an answer to a question."""


@dataclass(frozen=True)
class TextTask:
    """A `Task` whose answers are texts that a scorer reads.

    It does not name the protocol as its base: the protocol's properties would be taken for defaults of these fields.
    """

    name: str
    settings: QuestionTask
    questions: tuple[Question, ...]
    scorer: Scorer
    scorer_version: str
    """Another one where the scorer judges otherwise."""
    metric: str = "accuracy"
    corrections: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, name: str, settings: QuestionTask, questions: Sequence[Question], scorer: Scorer, scorer_version: str
    ) -> Self:
        """The task over as many questions as its settings ask for."""
        chosen = choose(name, questions, settings.num_items)
        return cls(name, settings, tuple(chosen), scorer, scorer_version)

    @property
    def version(self) -> str:
        """See `Task.version`; the scorer's Python objects are no part of it, its version is."""
        asked = [[each.id, each.text, each.expected, list(each.options), each.group] for each in self.questions]
        settings = self.settings.model_dump(mode="json", exclude={"num_items", "path"})
        return fingerprint({"questions": asked, "settings": settings, "scorer": self.scorer_version})

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """The question's messages, once."""
        if answers:
            return ()
        return (Generation(question.messages, self.settings.max_new_tokens),)

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """What the scorer makes of the only answer's text."""
        return self.scorer(question, answers[0].text)

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Nothing beside the mean of the scores."""
        return {}

    def asked_in(self, change: Callable[[Question], Question]) -> Self:
        """The same task with each question changed."""
        return replace(self, questions=tuple(map(change, self.questions)))


def choose(name: str, questions: Sequence[_Each], num_items: int | None) -> Sequence[_Each]:
    """All of them, or a random choice (seed 0) of `num_items`."""
    if num_items is None or len(questions) <= num_items:
        if num_items is not None and len(questions) < num_items:
            _log.warning(f"{name}: there are {len(questions)} questions; num_items={num_items} uses them all")
        return questions
    return random.Random(0).sample(questions, num_items)
