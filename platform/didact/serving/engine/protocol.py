"""What crosses between the API, a replica and a generation engine.

Aliases are resolved before an engine sees a request: it only knows immutable adapter versions, so nothing it caches by
version can ever go stale.
"""

import math
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from didact.errors import DidactError, SpecError
from didact.serving.engine.grammar.grammar import Grammar

FinishReason = Literal["stop", "length"]
_MOST_LOGPROBS = 20


class EngineBusy(DidactError, RuntimeError):
    """The waiting queue is full; the caller should come again."""


class PromptTooLong(DidactError, ValueError):
    """The prompt leaves no room for an answer in the model's context."""


class DeadlineExceeded(DidactError, TimeoutError):
    """The request was not finished in its time."""


class ReplicaLost(DidactError, ConnectionError):
    """The process that should answer is gone, and had not begun; another one may answer."""


class GenerationFailed(DidactError, RuntimeError):
    """The model could not compute an answer to this request; other requests go on."""


class EngineStopped(GenerationFailed):
    """The engine takes no more requests. This one was not begun; another engine may answer it."""


class EngineDied(GenerationFailed):
    """The engine ended while it had this request, which may be the cause: it must not be sent to another engine."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """One immutable adapter version on local disk."""

    version_id: str
    """Name, version and content, such as `demo:3#1f0c5a9be2d4`: another content has another id."""
    folder: Path
    """The adapter's files, complete."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Raises:
        SpecError: a number that is not finite or out of its range.
    """

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose probabilities reach this sum (Holtzman et al., 2020)."""
    top_k: int = 0
    """Only the k most likely tokens; 0 for all."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that the answer already holds."""
    frequency_penalty: float = 0.0
    """Taken once per occurrence in the answer."""
    min_p: float = 0.0
    """Only tokens that are at least this share as likely as the likeliest one (Nguyen et al., 2024)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that prompt or answer hold are divided by it where positive, else multiplied (Keskar, 2019)."""
    no_repeat_ngram_size: int = 0
    """No row of so many tokens comes twice in prompt and answer together (Paulus et al., 2017); 0 for no such limit."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to their logits."""
    seed: int | None = None
    """Same seed, same answer; None draws a fresh seed."""

    def __post_init__(self) -> None:
        checks = {
            "temperature": (0 <= self.temperature < math.inf, "a number of at least 0"),
            "top_p": (0 < self.top_p <= 1, "a number above 0, at most 1"),
            "top_k": (self.top_k >= 0, "a whole number of at least 0"),
            "presence_penalty": (math.isfinite(self.presence_penalty), "a finite number"),
            "frequency_penalty": (math.isfinite(self.frequency_penalty), "a finite number"),
            "min_p": (0 <= self.min_p <= 1, "a number of at least 0, at most 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "a number above 0"),
            "no_repeat_ngram_size": (self.no_repeat_ngram_size >= 0, "a whole number of at least 0"),
            "logit_bias": (
                all(token >= 0 and math.isfinite(bias) for token, bias in self.logit_bias),
                "token ids, and finite numbers",
            ),
            "seed": (self.seed is None or -(2**63) <= self.seed < 2**63, "a whole number of 64 bits"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise SpecError(f"{name}: found {getattr(self, name)}; expected {expected}")


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate."""

    request_id: str
    prompt_ids: tuple[int, ...]
    adapter: AdapterRef | None
    """None is the base."""
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    stop_token_ids: tuple[int, ...] = ()
    """The answer ends before the first of these tokens; to ignore the end of a text, leave its token out."""
    min_tokens: int = 0
    """Before so many tokens the answer does not end: its stop tokens cannot come, stop texts are text."""
    logprobs: int | None = None
    """Tell the logarithm of each token's probability, and those of this many likeliest ones, at most 20; None for not.

    They are the model's own, before temperature, penalties and bias.
    """
    grammar: Grammar | None = None
    """Only tokens that it allows come, whatever the sampling says; it ends the answer even before `min_tokens`."""
    priority: int = 0
    """Requests with a smaller one begin earlier, however long others wait."""
    deadline: float | None = None
    """On the clock of `time.monotonic` of the engine's process; None for no limit."""
    search: str | None = None
    """Names the search, as by beams, whose requests go on from each other's texts, a token longer each time: an engine
    may keep what it read of them to the token, for as long as they are the longest."""

    def __post_init__(self) -> None:
        if self.logprobs is not None and not 0 <= self.logprobs <= _MOST_LOGPROBS:
            raise SpecError(f"logprobs: found {self.logprobs}; expected a whole number from 0 to {_MOST_LOGPROBS}")
        if not 0 <= self.min_tokens <= self.max_new_tokens:
            raise SpecError(
                f"min_tokens: found {self.min_tokens}; expected a whole number from 0 to max_new_tokens, which is "
                f"{self.max_new_tokens}"
            )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely the model found a token."""

    token_id: int
    logprob: float
    """Natural logarithm."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens in its place, with theirs, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer."""

    text: str
    """Complete characters, ready to show; empty while a character or a possible stop text is unfinished."""
    token_ids: tuple[int, ...]
    """Tokens generated for this piece, the stop token included."""
    finish_reason: FinishReason | None = None
    """Set on the last piece: `stop`, or `length` when `max_new_tokens` or the context is used up."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """One for each of `token_ids`, where the request asks for them."""
    stop_text: str | None = None
    """On the last piece: the stop text that ended the answer."""
    queued_seconds: float | None = None
    """On the first piece: how long the request waited before its prompt was read."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A moment of an engine."""

    num_running: int
    num_waiting: int
    adapters: tuple[str, ...]
    """Version ids in memory, least recently used first."""
    prompt_tokens: int
    """Prompt tokens computed since the start."""
    generated_tokens: int
    """Tokens generated since the start."""
    adapter_loads: int
    adapter_evictions: int
    cached_prompt_tokens: int = 0
    """Prompt tokens since the start that an earlier prompt had computed."""
    max_running: int = 0
    """Requests that can be in generation."""
    max_adapters: int = 0
    """Adapter versions that can be in memory."""
    cache_usage: float = 0.0
    """Share of the memory for keys and values that is taken, 0 to 1."""
    num_drafts: int = 0
    """Guesses of tokens that come next, since the start."""
    drafted_tokens: int = 0
    """Tokens in these."""
    right_drafted_tokens: int = 0
    """Of these, those that the model chose as well."""


class Engine(Protocol):
    """Generates answers from one base and any number of adapter versions."""

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        ...

    @property
    def takes_grammars(self) -> bool:
        """Whether requests may have a grammar."""
        return False

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Queue the request at once and iterate over its answer. Closing the iterator cancels the request.

        Raises:
            EngineBusy, EngineStopped, PromptTooLong, GrammarsMissing: at the call.
            GrammarError, DeadlineExceeded, GenerationFailed: while iterating.
            EngineDied: while iterating, when the engine itself ended.
        """
        ...

    def cancel(self, request_id: str) -> None:
        """Stop a request; unknown and finished ones are ignored."""
        ...

    def preload(self, adapter: AdapterRef) -> "Future[None]":
        """Have a version in memory before its first request, unless running requests hold every place.

        The future raises AdapterError when the version cannot be used.
        """
        ...

    def close(self) -> None:
        """End the engine; unfinished requests fail."""
        ...

    def stats(self) -> EngineStats:
        """What the engine does now."""
        ...

    def health(self) -> None:
        """Return when the engine works.

        Raises:
            EngineStopped: the engine can no longer generate; replace it.
        """
        ...


@runtime_checkable
class ScoresPrompts(Protocol):
    """An engine that tells how likely a prompt is; others lend their model for it."""

    async def prompt_logprobs(self, adapter: AdapterRef | None, ids: Sequence[int], num_top: int) -> list[TokenLogprob]:
        """The logarithms of all tokens of a prompt but the first, with those of `num_top` likeliest ones."""
        ...
