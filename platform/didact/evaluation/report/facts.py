"""What a report holds: its models, its tasks, and each question with what every model gave."""

import math
from dataclasses import dataclass, field

BASE, ADAPTER = "base", "adapter"
"""What most reports compare. Others are `champion`, and further adapters by their names."""


@dataclass(frozen=True, slots=True)
class Searched:
    """How a model's own training data was searched for the questions of its evaluation."""

    rows: int = 0
    """Training rows that were read."""
    rules: str = ""
    """When a row holds a question."""
    problem: str | None = None
    """Why it could not be searched."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model of a report."""

    name: str
    digests: dict[str, str] = field(default_factory=dict)
    """See `Identity`; empty in reports of earlier versions."""
    searched: Searched | None = None
    """None where nobody looked: a base, an endpoint, a model whose recipe is not known."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task of a report."""

    name: str
    version: str
    """Digest over questions, prompts and scoring; empty for losses."""
    metric: str
    """The one of its metrics that says how good an answer is."""
    num_questions: int
    seconds: float
    corrections: tuple[str, ...] = ()
    problems: dict[str, int] = field(default_factory=dict)
    """Model -> questions that got no answer or no score. With any, the task is incomplete."""
    files: dict[str, str] = field(default_factory=dict)
    """Files of this machine that it was read from -> sha256."""
    judge: dict[str, str] = field(default_factory=dict)
    """Name and digests of the judge, where there is one, and after `rival ` of the model that answers are compared
    with."""


@dataclass(frozen=True, slots=True)
class Given:
    """What one model gave to one question."""

    texts: tuple[str, ...]
    """Its whole texts; none where likelihoods were asked."""
    values: dict[str, float]
    """Metric -> value."""
    extracted: str | None = None
    """What was read out of the text."""
    problem: str | None = None
    note: str = ""
    num_tokens: int = 0
    """Of all texts."""
    seen: str = ""
    """Where its own training data holds the question; empty where it does not, or nobody looked (`Searched`)."""


@dataclass(frozen=True, slots=True)
class QuestionFacts:
    """One question with what every model gave."""

    task: str
    id: str
    question: str
    expected: str
    given: dict[str, Given]
    """By model."""
    group: str = ""
    passage: str = ""

    @property
    def stands_with(self) -> str:
        """The same for questions that stand or fall together."""
        return self.passage or f"question {self.id}"

    def value(self, model: str, metric: str) -> float | None:
        """What a model's answer is worth; None where it has no score, or one that is not finite."""
        given = self.given.get(model)
        value = None if given is None or given.problem is not None else given.values.get(metric)
        return value if value is not None and math.isfinite(value) else None
