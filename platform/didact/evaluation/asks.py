"""What a task may ask of a model, and what comes back.

    Ask (Generation or Likelihood) -> Model.answer -> Answer

A model is whatever answers: base and adapters in this program's own engine, or an endpoint that speaks OpenAI's API.
A task's judge and a model that it is compared with are asked in the same way, by `to`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from didact.datasets.conversation import Message
from didact.files import fingerprint

Role = Literal["model", "judge", "rival"]
"""Who is asked: the model that is evaluated, the judge of its answers, or the model that it is compared with."""


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Text as the model's own tokens."""

    ids: tuple[int, ...]


Prompt = tuple[Message, ...] | str | TokenIds
"""Messages are rendered by the model's template contract, with the header of the next answer; text and token ids are
taken as they are, without any special token before them."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Ask for one or several answers."""

    prompt: Prompt
    max_new_tokens: int
    opening: str = ""
    """The answer begins with this text, which is not part of what comes back."""
    num_samples: int = 1
    """Answers drawn independently; more than one needs a temperature."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Of the first sample; the next ones have the next seeds."""
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these texts."""
    to: Role = "model"
    attempt: int = 0
    """Asking the very same thing once more (a judge's second pass) needs another number: answers are remembered."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Ask how likely texts are after a prompt."""

    prompt: Prompt
    continuations: tuple[str | TokenIds, ...]
    to: Role = "model"


Ask = Generation | Likelihood


@dataclass(frozen=True, slots=True)
class Text:
    """One generated answer."""

    text: str
    num_tokens: int
    finish: Literal["stop", "length"]
    """`length`: cut, because `max_new_tokens` or the context was used up."""


@dataclass(frozen=True, slots=True)
class Likely:
    """How likely one continuation is."""

    log_likelihood: float
    """Sum over its tokens, in nats."""
    num_tokens: int
    greedy: bool
    """Whether each of its tokens is the model's first choice."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `texts` of a Generation, `likelihoods` of a Likelihood, in the order that was asked for."""

    texts: tuple[Text, ...] = ()
    likelihoods: tuple[Likely, ...] = ()
    problem: str | None = None
    """Why there is no answer (a prompt beyond the context, an endpoint that gave none), which is no wrong answer."""
    num_prompt_tokens: int = 0
    seconds: float = 0.0
    """From asking to the whole answer, waiting for others included."""

    @property
    def text(self) -> str:
        """The first text; empty where there is none."""
        return self.texts[0].text if self.texts else ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Answer":
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: it is something else.
        """
        texts = tuple(Text(**each) for each in values["texts"])
        likelihoods = tuple(Likely(**each) for each in values["likelihoods"])
        return cls(**{**values, "texts": texts, "likelihoods": likelihoods})


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides a model's answers, so that they can be remembered and a verdict can name what it judged."""

    name: str
    """For people."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Such as `base`, `adapter`, `template`, `numbers` (the format it computes in); of an endpoint its address and
    model name, which are no digests of what stands behind them."""

    @property
    def address(self) -> str:
        """Hex digest over `digests`: the same one, the same answers."""
        return fingerprint(dict(self.digests))


class Model(Protocol):
    """Whatever answers."""

    @property
    def identity(self) -> Identity:
        """What it is."""
        ...

    @property
    def at_once(self) -> int:
        """As many asks as it takes at a time."""
        ...

    async def answer(self, ask: Ask) -> Answer:
        """Answer one ask. What concerns this ask alone comes back as the answer's `problem`.

        Raises:
            DidactError: the model can answer nothing any more.
        """
        ...


def ask_digest(ask: Ask) -> str:
    """Hex digest of all that is asked."""
    return fingerprint({"kind": type(ask).__name__, **asdict(ask)})
