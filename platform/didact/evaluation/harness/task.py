"""lm-eval's benchmarks as a task of ours: its requests are asked by our runner, and it scores what came back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as version_of
from typing import Any, Self

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation.asks import Answer, Ask
from didact.evaluation.harness.chat import Chat
from didact.evaluation.harness.model import DidactLM
from didact.evaluation.harness.requests import PlainWording, Wording, plan, responses
from didact.evaluation.harness.scores import Leaf, group_figures, leaf_figures
from didact.evaluation.questions import ModelTokens, Question, Score, told
from didact.files import fingerprint
from didact.spec import LmEvalTask


@dataclass(frozen=True, slots=True)
class Asked:
    """One document of an lm-eval task, with what it asks."""

    leaf: str
    """Name of the task."""
    number: int
    """Of the document within the task."""
    instances: tuple[Any, ...]
    """lm-eval's requests, in its order."""


@dataclass(frozen=True)
class HarnessTask:
    """A `Task` of one or several lm-eval tasks, which are its groups.

    It does not name the protocol as its base: the protocol's properties would be taken for defaults of these fields.
    """

    name: str
    settings: LmEvalTask
    leaves: Mapping[str, Leaf]
    groups: Mapping[str, Any]
    """lm-eval's own groups by name, which know how their tasks are averaged."""
    questions: tuple[Question, ...]
    """Each with its `Asked` as `data`."""
    wording: Wording = field(default_factory=PlainWording)
    corrections: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, settings: LmEvalTask, tasks: Mapping[str, Any], groups: Mapping[str, Any], asked: Sequence[Asked]
    ) -> Self:
        """The task over these documents.

        Args:
            settings: the spec.
            tasks: lm-eval's task objects by name.
            groups: its groups by name.
            asked: documents of all tasks.
        """
        leaves = {name: Leaf(name, task) for name, task in tasks.items()}
        grouped = len(leaves) > 1
        questions = tuple(_question(leaves[each.leaf], each, grouped) for each in asked)
        return cls(settings.name, settings, leaves, groups, questions)

    def with_tokens(self, tokens: ModelTokens) -> Self:
        """The same task, asked in these tokens."""
        return replace(self, wording=DidactLM(tokens))

    @property
    def version(self) -> str:
        """Digest over lm-eval's version, its tasks' settings, code and versions, all prompts and all right answers."""
        requests = [
            [question.id, each.request_type, *map(_plain, each.args)]
            for question in self.questions
            for each in question.data.instances
        ]
        # A task's metrics read whatever they need of a document, so all of it counts.
        right = [
            [each.id, each.expected, list(each.options), told(each.data.instances[0].doc)] for each in self.questions
        ]
        settings = {name: leaf.settings for name, leaf in self.leaves.items()}
        return fingerprint(
            {"lm_eval": version_of("lm_eval"), "requests": requests, "right": right, "settings": settings}
        )

    @property
    def metric(self) -> str:
        """The first of the first task."""
        return next(iter(self.leaves.values())).main_metric

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """All requests of the question, once. What cannot be asked is not; `score` says why."""
        if answers:
            return ()
        try:
            return plan(question.data.instances, self.wording).asks
        except DataError:
            return ()

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """What lm-eval makes of the answers."""
        if problem := next((answer.problem for answer in answers if answer.problem), None):
            return Score(problem=problem)
        asked: Asked = question.data
        try:
            given = responses(asked.instances, plan(asked.instances, self.wording), answers)
        except DataError as error:
            return Score(problem=str(error))
        return self.leaves[asked.leaf].score(asked.instances, given, question.options)

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """lm-eval's figures that are no means, and the standard errors of all, as `<metric>_stderr`."""
        by_leaf: dict[str, list[Score]] = {}
        for question, score in scores:
            if score.problem is None:
                by_leaf.setdefault(question.data.leaf, []).append(score)
        found = {name: leaf_figures(self.leaves[name], each) for name, each in by_leaf.items()}
        figures: dict[str, float] = {}
        several = len(self.leaves) > 1
        for name, each in found.items():
            shown = self.leaves[name].shown(each, with_means=several)
            figures |= {f"{name}/{metric}" if several else metric: value for metric, value in shown.items()}
        return figures | group_figures(self.groups, found, self.leaves)


def _question(leaf: Leaf, asked: Asked, grouped: bool) -> Question:
    document = asked.instances[0].doc
    return Question(
        id=f"{asked.leaf}/{asked.number}",
        messages=(Message("user", leaf.text(document) or str(_plain(asked.instances[0].args[0]))),),
        expected=leaf.expected(document),
        options=leaf.options(document),
        group=asked.leaf if grouped else "",
        data=asked,
    )


def _plain(argument: Any) -> Any:
    return argument.turns if isinstance(argument, Chat) else argument
