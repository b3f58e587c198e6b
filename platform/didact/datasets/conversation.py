"""The one form that all instruction data takes."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant", "document"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """An optional system message, then user and assistant turns, ending with the assistant's.

    Plain text takes the same form: one message of role `document`, and nothing else.
    """

    messages: tuple[Message, ...]
    row: int
    """Index of the raw row in its source, counted from 0 over accepted and rejected rows."""
    answer: str | None = None
    """The short checkable answer, where the source has one."""
    rationale: str | None = None
    """The reasoning that leads to `answer`, where the source has it as a text of its own."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages before the last assistant turn; a document's only message, since nothing asks for it."""
        return self.messages[:-1] or self.messages

    @property
    def is_document(self) -> bool:
        """Whether this is plain text."""
        return self.messages[0].role == "document"
