"""Turns of a chat and the tools on offer, as OpenAI's clients send them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from didact.datasets.conversation import Message, Role
from didact.datasets.forms.turns import prompt_turns
from didact.errors import DataError
from didact.serving.api.api_errors import ApiError

MAX_TOOLS = 128


class Body(BaseModel):
    """What a client sends: nothing unknown, nothing turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class TextPart(Body):
    """A piece of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


def joined(content: str | Sequence[TextPart]) -> str:
    """The text of a message's content."""
    return content if isinstance(content, str) else "".join(part.text for part in content)


class FunctionCall(Body):
    """What is called."""

    name: str = Field(min_length=1, max_length=64)
    arguments: str = Field(description="JSON text of an object")


class CallOfMessage(Body):
    """A call that an earlier answer made."""

    id: str = Field(min_length=1, max_length=128)
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = Field(
        default=None, description='text, or a list of parts {"type": "text", "text": ...}'
    )
    tool_calls: Annotated[list[CallOfMessage], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: str | None = Field(default=None, max_length=128)
    name: str | None = Field(default=None, max_length=64)
    """Of a result: the function."""
    reasoning_content: str | None = None
    """Of an earlier answer; templates leave earlier thoughts out."""

    def plain(self) -> Message:
        """The message in didact's form; `developer` is the newer word for `system`."""
        assert self.role != "tool"
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, joined(self.content or ""))

    def row(self) -> dict[str, Any]:
        """The message as rows of data have it."""
        role = "system" if self.role == "developer" else self.role
        calls = [call.model_dump() for call in self.tool_calls or ()]
        told = {"tool_calls": calls or None, "tool_call_id": self.tool_call_id}
        told["name"] = self.name if self.role == "tool" else None
        return {
            "role": role,
            "content": joined(self.content or ""),
            **{key: each for key, each in told.items() if each},
        }


class Function(Body):
    """A function on offer."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="letters, digits and _ . -, at most 64")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """Their JSON schema."""
    strict: bool | None = None


class Tool(Body):
    """A tool on offer."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """Which function."""

    name: str


class ToolChoice(Body):
    """The function that must be called."""

    type: Literal["function"]
    function: FunctionName


def turns_of(messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None) -> tuple[Message, ...]:
    """The turns in didact's form, with the tools on offer.

    Raises:
        ApiError: 400 for turns without text, and for calls and results that do not belong together.
    """
    for number, message in enumerate(messages):
        param = f"messages.{number}.content"
        if message.content is None and not message.tool_calls:
            text = f'{param}: missing; expected text, or a list of parts {{"type": "text", "text": ...}}.'
            raise ApiError(400, text, code="missing_required_parameter", param=param)
        if message.tool_calls and message.role != "assistant":
            param = f"messages.{number}.tool_calls"
            raise ApiError(400, f"{param}: found in a turn of {message.role}.", code="invalid_value", param=param)
    if not tools and not any(message.tool_calls or message.role == "tool" for message in messages):
        return tuple(message.plain() for message in messages)
    row: dict[str, Any] = {"messages": [message.row() for message in messages]}
    if tools:
        row["tools"] = [tool.model_dump(exclude_none=True) for tool in tools]
    try:
        turns = prompt_turns(row)
        for turn in turns:
            turn.written.encode()
    except DataError as error:
        raise ApiError(400, f"{error}.", code="invalid_value", param="messages") from None
    except RecursionError:
        raise _wrong("the arguments of a call are nested too deep") from None
    except UnicodeEncodeError:
        raise _wrong("the arguments of a call hold half of a surrogate pair, which is no character") from None
    return turns


def _wrong(words: str) -> ApiError:
    return ApiError(400, f"messages: {words}.", code="invalid_value", param="messages")
