"""Requests and answers of the OpenAI API, as far as they are served here; `parameters` says what becomes of the rest.

A field's description is what errors say is expected there.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import override

from didact.serving.api.chat_types import MAX_TOOLS, Body, ChatMessage, Tool, ToolChoice
from didact.serving.api.structured import STRUCTURED, ResponseFormat, asked_grammar
from didact.serving.engine.grammar.grammar import Grammar
from didact.serving.engine.protocol import FinishReason, Sampling

MAX_STOPS = 8
LONGEST_STOP = 64
_MAX_STOP_TOKENS = 64
_MAX_PROMPTS = 16
StopText = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
_MAX_BIASES = 1024
_MAX_LOGPROBS = 20
_TokenId = Annotated[int, Field(ge=0)]
_TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Bias = Annotated[float, Field(ge=-100, le=100)]
TokenIds = Annotated[list[_TokenId], Field(min_length=1)]


class StreamOptions(Body):
    """What a stream holds beside the text."""

    include_usage: bool = False


class AskingBody(Body):
    """What a body of any interface says of the answers that it wants."""

    model: str = Field(min_length=1, max_length=512, description="a model's name, at most 512 characters")
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    stream: bool | None = None

    @property
    def num_choices(self) -> int:
        """Answers per prompt."""
        return 1

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts as a tuple."""
        return ()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer, beside the template's."""
        return ()

    @property
    def answer_length(self) -> int | None:
        """Longest answer asked for, in tokens."""
        return self.max_tokens

    @property
    def length_field(self) -> str:
        """The field that says it."""
        return "max_tokens"

    @property
    def least_length(self) -> int:
        """Shortest answer asked for, in tokens."""
        return 0

    @property
    def ignores_end(self) -> bool:
        """Whether an answer goes on behind the model's own end."""
        return False

    @property
    def num_logprobs(self) -> int | None:
        """Likeliest tokens to tell beside each token's probability; None for neither."""
        return None

    @property
    def echoes(self) -> bool:
        """Whether the prompt is told as well."""
        return False

    @property
    def must_call(self) -> str | None:
        """The function that the answer must call, empty for any; None for as it likes."""
        return None

    @property
    def calls_once(self) -> bool:
        """Whether the answer may call one function at most."""
        return False

    @property
    def beams(self) -> int:
        """Answers that are followed at once; 1 for no search."""
        return 1

    @property
    def beams_length_penalty(self) -> float:
        """The power of its length by which the score of a searched answer is divided."""
        return 1.0

    @property
    def rank(self) -> int | None:
        """Priority; smaller ones begin earlier; None where none is asked for."""
        return None

    def grammar(self) -> Grammar | None:
        """What the answer must be; None for any text.

        Raises:
            ApiError: 400 for what cannot be one.
        """
        return None

    def sampling(self, choice: int) -> Sampling:
        """How choice number `choice` is drawn."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=max(self.top_k or 0, 0),
        )


class GenerationBody(AskingBody):
    """Fields that chat and completions share."""

    n: int | None = Field(default=None, ge=1, le=8)
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = Field(
        default=None,
        description=f"text of 1 to {LONGEST_STOP} characters, or a list of at most {MAX_STOPS} such texts",
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="a whole number of 64 bits")
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0, le=64)
    logit_bias: Annotated[dict[_TokenName, _Bias], Field(max_length=_MAX_BIASES)] | None = Field(
        default=None, description=f"at most {_MAX_BIASES} token ids, as texts, each with a number from -100 to 100"
    )
    num_beams: int | None = Field(default=None, ge=1, le=10)
    length_penalty: float | None = Field(default=None, ge=-10, le=10)
    min_tokens: int | None = Field(default=None, ge=0)
    ignore_eos: bool | None = None
    priority: int | None = Field(default=None, ge=-(2**31), lt=2**31, description="a whole number of 32 bits")
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = Field(default=None, description=STRUCTURED)
    guided_json: dict[str, Any] | str | None = Field(default=None, description="a JSON schema")
    guided_regex: str | None = Field(default=None, description="a regular expression")
    guided_choice: list[str] | None = Field(default=None, description="a list of texts")
    guided_grammar: str | None = Field(default=None, description="a grammar in Lark or GBNF")
    return_token_ids: bool | None = None
    """Tell the ids of prompt and answer."""
    return_tokens_as_token_ids: bool | None = None
    """Write tokens of logprobs as `token_id:42`."""
    stream_options: StreamOptions | None = None
    stop_token_ids: Annotated[list[_TokenId], Field(max_length=_MAX_STOP_TOKENS)] | None = Field(
        default=None, description=f"a list of at most {_MAX_STOP_TOKENS} token ids"
    )

    @property
    @override
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    @override
    def stop_texts(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    @override
    def stop_ids(self) -> tuple[int, ...]:
        return tuple(self.stop_token_ids or ())

    @property
    @override
    def least_length(self) -> int:
        return self.min_tokens or 0

    @property
    @override
    def ignores_end(self) -> bool:
        return bool(self.ignore_eos)

    @property
    @override
    def beams(self) -> int:
        return self.num_beams or 1

    @property
    @override
    def beams_length_penalty(self) -> float:
        return 1.0 if self.length_penalty is None else self.length_penalty

    @property
    @override
    def rank(self) -> int | None:
        return self.priority

    @override
    def grammar(self) -> Grammar | None:
        return asked_grammar(
            self.response_format,
            self.structured_outputs,
            {name: getattr(self, f"guided_{name}") for name in ("json", "regex", "choice", "grammar")},
        )

    @override
    def sampling(self, choice: int) -> Sampling:
        return replace(
            super().sampling(choice),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            no_repeat_ngram_size=self.no_repeat_ngram_size or 0,
            logit_bias=tuple(sorted((int(token), bias) for token, bias in (self.logit_bias or {}).items())),
            # Each choice has its own; the largest one goes on with the smallest.
            seed=None if self.seed is None else (self.seed + choice + 2**63) % 2**64 - 2**63,
        )


class ChatRequest(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(
        min_length=1, description="a list of messages, at least one, each with role and content"
    )
    max_completion_tokens: int | None = Field(default=None, ge=1)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = Field(
        default=None, description=f"a list of at most {MAX_TOOLS} functions"
    )
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = Field(
        default=None, description='none, auto, required, or {"type": "function", "function": {"name": ...}}'
    )
    parallel_tool_calls: bool | None = None
    """False: an answer calls one function at most."""
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)

    @property
    @override
    def answer_length(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens  # the newer name wins

    @property
    @override
    def length_field(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    @property
    def offered(self) -> tuple[str, ...]:
        """Names of the functions that may be called."""
        return () if self.tool_choice == "none" else tuple(tool.function.name for tool in self.tools or ())

    @property
    @override
    def must_call(self) -> str | None:
        if isinstance(self.tool_choice, ToolChoice):
            return self.tool_choice.function.name
        return "" if self.tool_choice == "required" else None

    @property
    @override
    def calls_once(self) -> bool:
        return self.parallel_tool_calls is False

    @property
    @override
    def num_logprobs(self) -> int | None:
        return self.top_logprobs or 0 if self.logprobs else None


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    prompt: str | TokenIds | Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=_MAX_PROMPTS)] = (
        Field(description=f"text, a list of token ids, or a list of at most {_MAX_PROMPTS} of either, none empty")
    )

    max_tokens: int | None = Field(default=None, ge=0)
    logprobs: int | None = Field(default=None, ge=0, le=_MAX_LOGPROBS)
    echo: bool | None = None

    @property
    @override
    def num_logprobs(self) -> int | None:
        return self.logprobs

    @property
    @override
    def echoes(self) -> bool:
        return bool(self.echo)

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """Each prompt as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [tuple(self.prompt)]
        return [item if isinstance(item, str) else tuple(item) for item in self.prompt]


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
    logprobs: dict[str, Any] | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    """Of completions; beside the choices in a chat."""
    finish_reason: FinishReason | Literal["tool_calls"] | None = None
    stop_reason: str | None = None
    """The stop text that ended the answer, as vLLM tells it."""

    def dump(self) -> dict[str, Any]:
        """As JSON values, without the forms that do not apply and what was not asked for."""
        optional = ("message", "delta", "text", "token_ids", "prompt_token_ids")
        absent = {name for name in optional if getattr(self, name) is None}
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
    prompt_token_ids: list[int] | None = None

    def dump(self) -> dict[str, Any]:
        """As JSON values."""
        absent = {name for name in ("usage", "prompt_token_ids") if getattr(self, name) is None}
        values = self.model_dump(exclude={"choices"} | absent)
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
    problem: str | None = None
    """Why the name still answers as `root`, where the registry says another version that cannot be served."""
