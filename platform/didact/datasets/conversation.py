"""The one form that all instruction data takes."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np

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


@dataclass(frozen=True, slots=True, eq=False)
class ConversationView(Sequence[Conversation]):
    """Some rows of a sequence, in its order; nothing is read before it is asked for."""

    base: Sequence[Conversation]
    places: "np.ndarray | range"
    """int64 [rows]: places in `base`, ascending."""
    digest: str
    """Says which rows these are among those of `base`."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | Sequence[Conversation]:
        """A row, or some."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return self.base[int(self.places[index])]

    def __eq__(self, other: object) -> bool:
        """Whether the other holds equal rows in the same order."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == others for mine, others in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def kept(self, keep: np.ndarray) -> "ConversationView":
        """The rows of which `keep` (bool [rows]) is true."""
        places = self.places[keep] if isinstance(self.places, np.ndarray) else np.flatnonzero(keep) + self.places.start
        digest = hashlib.sha256(self.digest.encode() + np.packbits(keep).tobytes())
        return ConversationView(self.base, places, digest.hexdigest())


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
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows that were accepted and are not trained on."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path or URL -> sha256 of the files that were read; empty for sources that are not files."""
    chosen: np.ndarray | None = field(default=None, compare=False)
    """int64: places, among the accepted rows, of those that `max_rows` chose to train on or hold out; None for all."""

    def without(self, keep: np.ndarray, dropped: Mapping[str, int]) -> "Dataset":
        """The data set without some training rows.

        Args:
            keep: bool [train rows]: False for those to leave out.
            dropped: reason -> their number.

        Raises:
            ValueError: `keep` has another length, or the counts are not those of the rows left out.
        """
        if len(keep) != len(self.train) or sum(dropped.values()) != len(keep) - int(np.count_nonzero(keep)):
            raise ValueError(f"{len(keep)} marks for {len(self.train)} rows of {self.name}, counts {dict(dropped)}")
        if keep.all():
            return self
        train = self.train
        if not isinstance(train, ConversationView):
            train = ConversationView(train, range(len(train)), self.fingerprint)
        train = train.kept(keep)
        identity = hashlib.sha256(f"{self.fingerprint}/{train.digest}".encode()).hexdigest()
        counts = dict(sorted((Counter(self.dropped) + Counter(dropped)).items()))
        return replace(self, train=train, fingerprint=identity, dropped=counts)


class AllRows(Sequence[Conversation]):
    """Training rows, then held-out rows, read as they are asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self._train = dataset.train
        self._held_out = dataset.held_out

    def __len__(self) -> int:
        return len(self._train) + len(self._held_out)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Conversation, ...]: ...

    def __getitem__(self, index: int | slice) -> Conversation | tuple[Conversation, ...]:
        """A row, or several."""
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = range(len(self))[index]
        return self._train[place] if place < len(self._train) else self._held_out[place - len(self._train)]
