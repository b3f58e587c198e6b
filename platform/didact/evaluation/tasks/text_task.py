"""Tasks whose answers are texts: all that they need beside questions is a scorer.

Examples, reasoning, several samples and probes of the reasoning are the same for all of them.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask, Generation
from didact.evaluation.questions import Question, Score, told
from didact.evaluation.reasoning import (
    PROMPTS_VERSION,
    answer_mark,
    of_samples,
    probe_asks,
    probe_values,
    prompt_of,
    read_answer,
)
from didact.evaluation.reasoning.prompts import wording_of
from didact.evaluation.scorers.scorer import NamedScorer, Scorer, normalised
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import QuestionTask, TextQuestionTask

_log = get_logger(__name__)
_Each = TypeVar("_Each")
_DECISIVE = {"max_new_tokens", "prompt", "few_shot", "samples", "temperature", "faithfulness"}
"""Settings that decide figures; the others have decided the questions."""


@dataclass(frozen=True)
class TextTask:
    """A `Task` whose answers are texts that a scorer reads.

    It does not name the protocol as its base: the protocol's properties would be taken for defaults of these fields.
    """

    name: str
    settings: QuestionTask
    questions: tuple[Question, ...]
    scorer: NamedScorer
    examples: tuple[Question, ...] = ()
    """Questions with answers, of which `few_shot` stand before each question."""
    corrections: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        settings: QuestionTask,
        questions: Sequence[Question],
        scorer: Scorer | NamedScorer,
        scorer_version: str = "",
        *,
        examples: Sequence[Question] = (),
        corrections: Sequence[str] = (),
    ) -> Self:
        """The task over as many questions as its settings ask for.

        Args:
            name: as in `eval/<name>/<metric>`.
            settings: what the recipe says.
            questions: all there are.
            scorer: one with a name, or a function whose metric is `accuracy` and that looks through all of a text.
            scorer_version: of a function: another one where it judges otherwise.
            examples: for `few_shot`.
            corrections: what was mended or left out in the files.

        Raises:
            DataError: there are no questions, or fewer examples than `few_shot` asks for.
        """
        if not questions:
            raise DataError(f"evaluation task {name}: it has no questions")
        if settings.few_shot > len(examples):
            raise DataError(
                f"evaluation task {name}: few_shot: {settings.few_shot} asks for more worked examples than there are "
                f"({len(examples)}); set `examples` to a file that has them, or lower few_shot"
            )
        named = (
            scorer if isinstance(scorer, NamedScorer) else NamedScorer(scorer, scorer_version, reads="whole", same=None)
        )
        chosen = tuple(choose(name, questions, settings.num_items))
        used = tuple(examples) if settings.few_shot else ()
        return cls(name, settings, chosen, named, used, tuple(corrections))

    @property
    def metric(self) -> str:
        """The scorer's."""
        return self.scorer.metric

    @property
    def version(self) -> str:
        """Hex digest over questions, examples, prompts and scoring; of the scorer its own version."""
        settings = self.settings.model_dump(mode="json", include=_DECISIVE)
        return fingerprint(
            {
                "questions": [_told(each) for each in self.questions],
                "examples": [[*_told(each), each.rationale] for each in self.examples],
                "settings": settings,
                "scorer": self.scorer.version,
                "prompts": PROMPTS_VERSION,
            }
        )

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """The question once, for all samples; then what probes the reasoning of the answer."""
        prompt = prompt_of(question, self.settings, self.examples)
        if not answers:
            samples, temperature = self.settings.samples, self.settings.drawn_at
            return (Generation(prompt, self.settings.max_new_tokens, num_samples=samples, temperature=temperature),)
        if not self._probes or not answers[0].texts:
            return ()
        return probe_asks(prompt, wording_of(question).mark, self.settings.max_new_tokens, answers)

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """What the samples are worth together, how long they are and end, and what the probes found."""
        texts = answers[0].texts
        if not texts:
            return Score(problem="the model gave no text")
        scored = [self._score_one(question, each.text) for each in texts]
        together = of_samples(scored, self.metric, self.scorer.same)
        if together.problem is not None:
            return together
        lengths: dict[str, float] = {
            "answer_tokens": sum(each.num_tokens for each in texts) / len(texts),
            "cut": sum(each.finish == "length" for each in texts) / len(texts),
        }
        if self._stepwise and self.scorer.reads == "last":
            lengths["unmarked"] = sum(answer_mark(each.text) is None for each in texts) / len(texts)
        same = self.scorer.same or normalised
        probed = probe_values(answers, partial(self._read, question), same) if self._probes else {}
        return replace(together, values={**together.values, **lengths, **probed})

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Nothing beside the mean of the scores."""
        return {}

    @property
    def _stepwise(self) -> bool:
        return self.settings.prompt == "step_by_step"

    @property
    def _probes(self) -> bool:
        return isinstance(self.settings, TextQuestionTask) and self.settings.faithfulness

    def _score_one(self, question: Question, text: str) -> Score:
        answer = read_answer(text, stepwise=self._stepwise, reads=self.scorer.reads)
        score = self.scorer.score(question, answer or "")
        if score.problem is not None or score.note or not score.values.get("unread"):
            return score
        if not text.strip():
            return replace(score, note="the model ended without a word")
        return score if answer is not None else replace(score, note="the text names no answer")

    def _read(self, question: Question, text: str) -> str | None:
        return self.scorer.score(question, text).extracted


def _told(question: Question) -> list[object]:
    """What of a question decides its figures."""
    turns = [[turn.role, turn.written] for turn in question.messages]
    return [question.id, turns, question.expected, list(question.options), question.group, told(question.data)]


def choose(name: str, questions: Sequence[_Each], num_items: int | None) -> Sequence[_Each]:
    """All of them, or a random choice (seed 0) of `num_items`."""
    if num_items is None or len(questions) <= num_items:
        if num_items is not None and len(questions) < num_items:
            _log.warning(f"{name}: there are {len(questions)} questions; num_items={num_items} uses them all")
        return questions
    return random.Random(0).sample(questions, num_items)
