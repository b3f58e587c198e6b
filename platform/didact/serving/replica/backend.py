"""What crosses between the API and those who answer: asks, events, and the `Backend` that turns one into the other.

Ask -> Backend.ask -> Started, Delta, Delta ... | Refusal
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol

from didact.datasets.conversation import Message
from didact.registry import ModelVersion
from didact.serving.engine.grammar.grammar import Grammar
from didact.serving.engine.protocol import AdapterRef, Delta, EngineStats, Sampling
from didact.serving.metrics.snapshots import Snapshot
from didact.serving.replica.adapter_store import FolderVersion
from didact.serving.replica.token_words import TokenWord

CallFormat = Literal["hermes", "mistral", "llama3"]
RefusalKind = Literal[
    "no_tools",
    "no_grammars",
    "bad_grammar",
    "busy",
    "too_long",
    "bad_prompt",
    "bad_adapter",
    "registry",
    "timeout",
    "failed",
    "stopped",
    "died",
    "suspect",
]
Prompt = tuple[Message, ...] | str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One answer wanted from a replica."""

    request_id: str
    prompt: Prompt
    """Messages of a chat, plain text, or token ids."""
    adapter: ModelVersion | FolderVersion | AdapterRef | None
    """A registered version, a folder that every replica sees or one on this machine, or None for the base."""
    max_new_tokens: int
    timeout_seconds: float
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    """Beside those that the template ends answers with."""
    ignore_eos: bool = False
    """Go on behind the tokens that the template ends answers with."""
    min_tokens: int = 0
    """Before so many tokens the answer does not end."""
    logprobs: int | None = None
    """Tell how likely each token was, and this many likeliest ones; None for not."""
    echo: bool = False
    """Tell the prompt as well, with `logprobs` how likely its tokens are."""
    must_call: str | None = None
    """The answer must call this function; empty for any, None for as it likes."""
    one_call: bool = False
    """Beside `must_call`: not several calls."""

    priority: int = 0
    """Smaller ones begin earlier."""
    grammar: Grammar | None = None
    """What the answer must be; behind its thoughts, where the template has such. None beside `must_call`."""
    num_beams: int = 1
    """Answers that are followed at once, the likeliest of which is told; above 1 nothing is sampled, no text stops."""
    length_penalty: float = 1.0
    """Of beams, see `beam_search`."""
    whole: bool = False
    """Nobody reads along, so that all pieces behind the first may come as one."""

    @property
    def mark(self) -> str:
        """Digest of all that decides what an engine does with it, the seed aside."""
        adapter: object = self.adapter
        if isinstance(self.adapter, ModelVersion):  # aliases and tags may change
            adapter = (self.adapter.name, self.adapter.version, self.adapter.adapter_sha256)
        elif isinstance(self.adapter, FolderVersion):
            adapter = (self.adapter.name, self.adapter.sha256, self.adapter.manifest_sha256)
        sampling = {**asdict(self.sampling), "seed": None}
        length = (self.max_new_tokens, self.min_tokens, self.ignore_eos, self.logprobs, self.echo)
        beams = (self.num_beams, self.length_penalty, self.must_call, self.one_call)
        decided = repr((adapter, self.prompt, sampling, length, beams, self.stop, self.stop_token_ids, self.grammar))
        return hashlib.sha256(decided.encode("utf-8", errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Speech:
    """How an answer writes what is not plain text."""

    calls: CallFormat | None = None
    """Function calls: `<tool_call>` (Qwen, SmolLM, Hermes), `[TOOL_CALLS]` (Mistral), bare JSON (Llama 3)."""
    thoughts: tuple[str, str] | None = None
    """Marks before and behind thoughts."""
    begun: str = ""
    """What the prompt has begun the answer with already."""


@dataclass(frozen=True, slots=True)
class Started:
    """The request is in the engine's queue."""

    num_prompt_tokens: int
    prompt_ids: tuple[int, ...] = ()
    """Where the request asks to be told the prompt, as for the two below."""
    prompt_text: str = ""
    prompt_words: tuple[TokenWord, ...] = ()
    """With `logprobs`, of all tokens but the first."""
    speech: Speech = Speech()


@dataclass(frozen=True, slots=True)
class Refusal:
    """There will be no (further) answer."""

    kind: RefusalKind
    """`stopped`: the engine did not begin; `died`: it ended with this request; `suspect`: one did before."""
    message: str


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What a backend answers with when no adapter is asked for."""

    fingerprint: str
    """Hex digest of the base's weights and architecture."""
    context_length: int
    """Tokens of prompt and answer together."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """Text to be made tokens, or tokens to be made text, as a model's own tokenizer does it."""

    prompt: Prompt
    """Messages, text, or token ids."""
    adapter: ModelVersion | FolderVersion | AdapterRef | None = None
    add_special_tokens: bool = True
    """Of text: with what the tokenizer puts around it by itself."""
    add_generation_prompt: bool = True
    """Of messages: with the header of the next answer."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """Tokens and their text."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """As the vocabulary writes them."""
    text: str


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What clients that tokenize for themselves ask."""

    kind: str
    """Name of its class."""
    chat_template: str
    special: Mapping[str, str]
    """`bos_token`, `eos_token`, ... -> its text."""
    vocabulary_size: int


Event = Started | Delta | Refusal


class Backend(Protocol):
    """Something that answers: a `Worker` in this process, or replicas behind a Ray Serve handle."""

    def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        """Pieces of one answer. Closing the iterator cancels it.

        Raises:
            ReplicaLost: the replica was gone before it began; asking again may reach another.
            EngineDied: the replica died while it had this, which may be the cause.
        """
        ...

    def prepare(self, version: ModelVersion | FolderVersion) -> None:
        """Block until a version is verified and in memory.

        Raises:
            AdapterError, RegistryError: it cannot be served.
        """
        ...

    async def stats(self) -> EngineStats:
        """Figures of one engine; raises when it does not work."""
        ...

    async def metrics(self) -> Sequence[Snapshot]:
        """What every replica has counted; those that do not answer are left out."""
        ...

    async def facts(self) -> BaseFacts:
        """The base."""
        ...

    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        """Tokenize, or put tokens together."""
        ...

    async def tokenizer(self) -> TokenizerFacts:
        """The base's tokenizer."""
        ...
