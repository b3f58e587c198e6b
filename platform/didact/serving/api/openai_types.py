"""Requests and answers of the OpenAI API, as far as they are served here. Unknown fields are ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from didact.datasets.conversation import Message, Role
from didact.serving.api.api_errors import unsupported
from didact.serving.engine.protocol import FinishReason, Sampling

_MAX_STOPS = 8
_MAX_PROMPTS = 16
_StopText = Annotated[str, Field(min_length=1, max_length=64)]
_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class StreamOptions(_Body):
    """What a stream holds beside the text."""

    include_usage: bool = False


class TextPart(_Body):
    """A piece of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> Message:
        """The message in didact's form; `developer` is the newer word for `system`."""
        role: Role = "system" if self.role == "developer" else self.role
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role, text)


class GenerationBody(_Body):
    """Fields that chat and completions share."""

    model: str = Field(min_length=1, max_length=512)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    n: int | None = Field(default=None, ge=1, le=8)
    stop: _StopText | Annotated[list[_StopText], Field(max_length=_MAX_STOPS)] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Any = None
    logit_bias: Any = None
    repetition_penalty: Any = None
    min_p: Any = None
    min_tokens: Any = None
    ignore_eos: Any = None

    @property
    def num_choices(self) -> int:
        """Answers per prompt."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def answer_length(self) -> int | None:
        """Longest answer asked for, in tokens."""
        return self.max_tokens

    def sampling(self, choice: int) -> Sampling:
        """How choice number `choice` is drawn; with a seed, each choice has its own."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=max(self.top_k or 0, 0),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
        )

    def refuse_unsupported(self) -> None:
        """Refuse what would change the answer and cannot be honoured.

        Raises:
            ApiError: 400 `unsupported_parameter`.
        """
        neutral: dict[str, tuple[Any, ...]] = {
            "logprobs": (None, False),
            "logit_bias": (None, {}),
            "repetition_penalty": (None, 1),
            "min_p": (None, 0),
            "min_tokens": (None, 0),
            "ignore_eos": (None, False),
        }
        self._refuse(neutral)

    def _refuse(self, neutral: dict[str, tuple[Any, ...]]) -> None:
        for name, values in neutral.items():
            if getattr(self, name) not in values:
                raise unsupported(name, f"{name} is not supported here; leave it out.")


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    top_logprobs: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    response_format: Any = None
    audio: Any = None

    @property
    def answer_length(self) -> int | None:
        """`max_completion_tokens` is the newer name and wins."""
        return self.max_completion_tokens or self.max_tokens

    @override
    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        neutral: dict[str, tuple[Any, ...]] = {
            "top_logprobs": (None, 0),
            "tools": (None, []),
            "tool_choice": (None, "none", "auto"),
            "functions": (None, []),
            "response_format": (None, {"type": "text"}),
            "audio": (None,),
        }
        self._refuse(neutral)


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    prompt: str | _TokenIds | Annotated[list[str] | list[_TokenIds], Field(min_length=1, max_length=_MAX_PROMPTS)]
    echo: Any = None
    suffix: Any = None
    best_of: Any = None

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(self.prompt)]
        return [item if isinstance(item, str) else tuple(item) for item in self.prompt]

    @override
    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        self._refuse({"echo": (None, False), "suffix": (None, ""), "best_of": (None, 1, self.num_choices)})


class Usage(BaseModel):
    """Tokens counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Choice(BaseModel):
    """One answer, or a piece of one: exactly one of `message`, `delta` and `text` is there."""

    index: int
    message: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    text: str | None = None
    logprobs: None = None
    finish_reason: FinishReason | None = None

    def dump(self) -> dict[str, Any]:
        """As JSON values, without the two forms that do not apply."""
        absent = {name for name in ("message", "delta", "text") if getattr(self, name) is None}
        return self.model_dump(exclude=absent)


class Answer(BaseModel):
    """A whole answer or a chunk of a stream."""

    id: str
    object: Literal["chat.completion", "chat.completion.chunk", "text_completion"]
    created: int
    """Seconds since 1970."""
    model: str
    system_fingerprint: str
    """The immutable version that answers."""
    choices: list[Choice]
    usage: Usage | None = None

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        values = self.model_dump(exclude={"choices"} | ({"usage"} if self.usage is None else set()))
        return {**values, "choices": [choice.dump() for choice in self.choices]}


class ModelCard(BaseModel):
    """An entry of /v1/models."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "didact"
    root: str
    """What answers: the base, or the immutable version that the name means now."""
    parent: str | None = None
    """The base of an adapter."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together."""
    aliases: list[str] = Field(default_factory=list)
