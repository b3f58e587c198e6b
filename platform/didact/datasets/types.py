"""The one form that all instruction data takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Dataset:
    """A source brought to one form: what is trained on, what is held out, what was refused."""

    name: str
    train: Sequence[Conversation]
    held_out: Sequence[Conversation]
    fingerprint: str
    """Digest of the source's bytes and of every setting that decides its rows: same fingerprint, same rows in order."""
    rows_read: int
    rows_rejected: int
    quarantine: Path | None
    """JSON lines with file, line, byte offset, reason and the raw text of each rejected row; None without rejects."""
