"""What a task is: questions, what they ask of a model, and when an answer counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from didact.datasets.conversation import Message
from didact.evaluation.asks import Answer, Ask
from didact.files import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from didact.tokens.template import TemplateContract


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a task."""

    id: str
    """Its name within the task, the same in every evaluation of the task."""
    messages: tuple[Message, ...]
    """As the task gives it, before examples or instructions are put around it; the last turn is the user's."""
    expected: str = ""
    """The right answer in the source's own words; empty where there is none."""
    options: tuple[str, ...] = ()
    """Of a multiple choice, without their letters."""
    group: str = ""
    """Class or subject, which has figures of its own."""
    passage: str = ""
    """What it shares with other questions, such as the text that they are about: these stand or fall together, which
    widens intervals. Empty where it stands alone."""
    rationale: str = ""
    """Reasoning that leads to the right answer, where the source has it."""
    data: Any = None
    """What else its scorer needs."""

    @property
    def text(self) -> str:
        """What the user asks last."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Score:
    """What one model's answers to one question are worth."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Metric -> value, such as `accuracy: 1.0`; a metric that could not be told is left out, never set to 0."""
    extracted: str | None = None
    """What was read out of the answer; None where nothing could be read."""
    problem: str | None = None
    """Why it could not be scored. The task counts such questions."""
    note: str = ""
    """What a reader should see beside the answer, such as a judge's reason."""
    data: Any = None
    """What else the task's `overall` needs of it."""
    unjudged: bool = False
    """Whether the problem is that no reply of the judge holds a verdict."""


class Task(Protocol):
    """A benchmark, ready to be asked. Built from its spec by `build_task`."""

    @property
    def name(self) -> str:
        """As in `eval/<name>/<metric>`."""
        ...

    @property
    def version(self) -> str:
        """Hex digest over questions, prompts and scoring: another version, other figures."""
        ...

    @property
    def questions(self) -> Sequence[Question]:
        """All that are asked, in order."""
        ...

    @property
    def metric(self) -> str:
        """The one of `Score.values` that says whether an answer is right, or how good it is: `accuracy`, `score`."""
        ...

    @property
    def corrections(self) -> tuple[str, ...]:
        """What was mended in the files that the questions come from, one line each."""
        ...

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """What to ask next, given the answers so far; nothing more ends the question.

        Called first without answers; what is asked together is answered together, and its answers are appended in the
        same order. A second turn, a judge and its repair are further rounds.
        """
        ...

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """What the answers are worth."""
        ...

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Figures that are no mean over questions, such as a calibration error: metric -> value. Often none."""
        ...


@dataclass(frozen=True, slots=True)
class ModelTokens:
    """How texts become a model's tokens."""

    tokenizer: "PreTrainedTokenizerBase"
    contract: "TemplateContract"
    max_length: int
    """Tokens of its context."""


@runtime_checkable
class TokenTask(Protocol):
    """A task that asks in token ids, where the tokenizer of the models that are evaluated is at hand."""

    def with_tokens(self, tokens: ModelTokens) -> Task:
        """The same task, asked in these tokens."""
        ...


def told(data: Any) -> str:
    """Hex digest of what a question holds beside its words, for a task's version.

    Rows of files are plain data; tables also give dates, decimals, bytes and arrays. Of an object that a program made
    its fields count, and of one without any its type alone.
    """
    return fingerprint(_plain(data))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(each) for each in value), key=repr)
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if callable(getattr(value, "tolist", None)):  # numpy's arrays and numbers
        return _plain(value.tolist())
    # Dates, decimals and their like write their whole value; other objects write where they lie in memory.
    written = repr(value)
    return written if " at 0x" not in written else type(value).__qualname__
