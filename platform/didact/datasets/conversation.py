"""The one form that all instruction data takes."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant", "tool", "document"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One function that the assistant wants called."""

    name: str
    arguments: str
    """JSON text of an object."""
    id: str
    """Says which result belongs to it."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What a turn has to do with tools, beside its text."""

    calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    call_id: str | None = None
    """Of a result (role `tool`): the call that it answers, where that is known."""
    name: str | None = None
    """Of a result: the function that was called, where that is known."""
    offered: str | None = None
    """Of the conversation's first turn: JSON text of the list of tools that the model may call."""

    def to_json(self) -> str:
        """All fields as JSON text, in one line."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "ToolUse":
        """What `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "calls": tuple(ToolCall(**call) for call in values["calls"])})


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str
    tools: ToolUse | None = field(default=None, kw_only=True)
    """Calls, results and the tools on offer; None for a turn that is text alone."""
    learned: bool = field(default=True, kw_only=True)
    """False for an answer that is read and not learned, because its row says so. Only answers are ever learned."""

    @property
    def written(self) -> str:
        """Everything that this turn adds to a prompt: its text, and the calls or tools as JSON text below it."""
        if self.tools is None:
            return self.content
        calls = [f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}' for call in self.tools.calls]
        return "\n".join(part for part in (self.tools.offered, self.content, *calls) if part)


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row stands."""

    file: int
    """Number of its file among those of its part."""
    line: int
    """As `RawRow.line`."""
    byte_offset: int | None
    """As `RawRow.byte_offset`."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system message, then user and assistant turns, ending with the assistant's.

    Results of tools (role `tool`) stand between the assistant's call and its next turn. Plain text takes the same form:
    one message of role `document`, and nothing else.
    """

    messages: tuple[Message, ...]
    row: int
    """Index of the raw row in its source, counted from 0 over accepted and rejected rows."""
    answer: str | None = None
    """The short checkable answer, where the source has one."""
    rationale: str | None = None
    """The reasoning that leads to `answer`, where the source has it as a text of its own."""
    place: RowPlace | None = field(default=None, compare=False, repr=False)
    """Where its row stands in the source; None for one that was read from nowhere."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn; a document's only message, since nothing asks for it."""
        return self.messages[:-1] or self.messages

    @property
    def is_document(self) -> bool:
        """Whether this is plain text."""
        return self.messages[0].role == "document"
