"""What a report holds: its models, its tasks, and each question with what every model gave."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model of a report."""

    name: str
    digests: dict[str, str] = field(default_factory=dict)
    """See `Identity`; empty in reports of earlier versions."""


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
    judge: dict[str, str] = field(default_factory=dict)


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
