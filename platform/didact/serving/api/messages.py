"""Anthropic's Messages API over the same backend: `/v1/messages` and `/v1/messages/count_tokens`.

    body -> MessagesRequest -> Gateway.answer -> a message, or its events by name

As far as it is text: tools, pictures and thinking are refused by name, as on the other interfaces.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from typing_extensions import override

from didact.datasets.conversation import Message
from didact.serving.api.answers import Endpoint, Written, sse
from didact.serving.api.api_errors import ApiError
from didact.serving.api.chat_types import Body, TextPart, joined
from didact.serving.api.openai_types import LONGEST_STOP, MAX_STOPS, AskingBody, StopText, Usage
from didact.serving.engine.protocol import Delta, FinishReason
from didact.serving.replica.backend import Started

if TYPE_CHECKING:
    from didact.serving.api.gateway import Gateway

_CONTENT = 'text, or a list of parts {"type": "text", "text": ...}'
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large"}


class Turn(Body):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[TextPart] = Field(description=_CONTENT)


class _Conversation(AskingBody):
    """Turns, and what stands before them."""

    messages: list[Turn] = Field(
        min_length=1, description="a list of messages, at least one, each with role and content, the last one a user's"
    )
    system: str | list[TextPart] | None = Field(default=None, description=_CONTENT)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns, the system's first."""
        system = () if self.system is None else (Message("system", joined(self.system)),)
        return (*system, *(Message(turn.role, joined(turn.content)) for turn in self.messages))


class MessagesRequest(_Conversation):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1)
    temperature: float | None = Field(default=None, ge=0, le=1)
    stop_sequences: Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = Field(
        default=None, description=f"a list of at most {MAX_STOPS} texts of 1 to {LONGEST_STOP} characters"
    )

    @property
    @override
    def stop_texts(self) -> tuple[str, ...]:
        return tuple(self.stop_sequences or ())


class CountRequest(_Conversation):
    """POST /v1/messages/count_tokens."""


class MessagesEndpoint(Endpoint):
    """Anthropic's answers."""

    prompt_field = "messages"

    def __init__(self, model: str, request_id: str, _: str) -> None:
        self._head = {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}
        self._end = _ending(None, None)

    @override
    def whole(self, answers: Sequence[Written], usage: Usage) -> dict[str, Any]:
        (answer,) = answers
        return {
            **self._head,
            "content": [{"type": "text", "text": answer.text}],
            **_ending(answer.reason, answer.stop_text),
            "usage": {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens},
        }

    @override
    def opening(self, started: Mapping[int, Started]) -> Iterator[str]:
        usage = {"input_tokens": started[0].num_prompt_tokens, "output_tokens": 0}
        begun: dict[str, Any] = {**self._head, "content": [], **_ending(None, None), "usage": usage}
        yield _event("message_start", message=begun)
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})

    @override
    def piece(self, index: int, delta: Delta) -> Iterator[str]:
        if delta.text:
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": delta.text})
        if delta.finish_reason is not None:
            self._end = _ending(delta.finish_reason, delta.stop_text)

    @override
    def failure(self, error: ApiError) -> str:
        return _event("error", error=in_anthropics_form(error)["error"])

    @override
    def closing(self, usage: Usage) -> Iterator[str]:
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=self._end, usage={"output_tokens": usage.completion_tokens})
        yield _event("message_stop")


async def messages(gateway: "Gateway", request: Request) -> Response:
    """POST /v1/messages."""
    body = await gateway.read(request, MessagesRequest)
    return await gateway.answer(body, [_asked(body)], request, partial(MessagesEndpoint, body.model))


async def count_tokens(gateway: "Gateway", request: Request) -> Response:
    """POST /v1/messages/count_tokens: the tokens of the prompt, with the header of the answer."""
    body = await gateway.read(request, CountRequest)
    spelled = await gateway.spelled(body.model, request.state.key, _asked(body), "messages")
    return JSONResponse({"input_tokens": len(spelled.ids)})


def in_anthropics_form(error: ApiError) -> dict[str, Any]:
    """An error's body as Anthropic's clients expect it."""
    kind = _KINDS.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    if error.status in (429, 503):
        kind = "rate_limit_error" if error.status == 429 else "overloaded_error"
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def _asked(body: _Conversation) -> tuple[Message, ...]:
    if body.messages[-1].role != "user":
        number = len(body.messages) - 1
        message = f"messages.{number}.role: found assistant; an answer that is begun cannot be continued here."
        raise ApiError(400, message, code="unsupported_parameter", param=f"messages.{number}.role")
    return body.prompt


def _ending(reason: FinishReason | None, stop_text: str | None) -> dict[str, str | None]:
    told = {"length": "max_tokens", "stop": "end_turn", None: None}[reason]
    return {"stop_reason": "stop_sequence" if stop_text is not None else told, "stop_sequence": stop_text}


def _event(name: str, **values: Any) -> str:
    return sse({"type": name, **values}, name)
