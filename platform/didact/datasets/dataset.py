"""What a source became: conversations to train on and conversations that are held out."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np

from didact.datasets.conversation import Conversation
from didact.datasets.stored.reader import StoredConversations
from didact.datasets.stored.view import ConversationView


@dataclass(frozen=True, slots=True)
class Dataset:
    """A source brought to one form: what is trained on, what is held out, what was refused."""

    name: str
    train: ConversationView
    held_out: ConversationView
    fingerprint: str
    """Digest of the source's bytes and of every setting that decides its rows: same fingerprint, same rows in order."""
    rows_read: int
    rows_rejected: int
    quarantine: Path | None
    """JSON lines with file, line, byte offset, reason and the text of each rejected row; None without rejects. Of a row
    that gave no sample the text is its turns."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows that were accepted and are not trained on."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path or URL -> sha256 of the files that were read; empty for sources that are not files."""
    places: tuple[tuple[str, ...], ...] = field(default=(), compare=False)
    """Of each part of the source, the names of its files."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows of `train` and `held_out` that gave no sample, once tokens were made of them."""
    chosen: np.ndarray | None = field(default=None, compare=False)
    """int64: positions of accepted rows that `max_rows` chose to train on or hold out; None for all."""

    @property
    def num_rejected(self) -> int:
        """Rows that could not be read, and those that gave no sample."""
        return self.rows_rejected + sum(self.refused.values())

    @property
    def stored(self) -> StoredConversations:
        """All accepted rows of the source; of a stream with `max_rows` those that were chosen."""
        return self.train.stored

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
        train = self.train.kept(keep)
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
            return tuple(self[position] for position in range(*index.indices(len(self))))
        position = range(len(self))[index]
        return self._train[position] if position < len(self._train) else self._held_out[position - len(self._train)]
