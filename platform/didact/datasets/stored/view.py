"""Some of a source's stored rows as a sequence: what is trained on, or what is held out."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from didact.cache.columns import within
from didact.datasets.conversation import Conversation
from didact.datasets.stored.reader import Keys, StoredConversations


@dataclass(frozen=True, slots=True, eq=False)
class ConversationView(Sequence[Conversation]):
    """Some stored rows, in their order; nothing is read before it is asked for."""

    stored: StoredConversations
    positions: "np.ndarray | range"
    """int64 [rows]: which of the stored rows, ascending."""
    digest: str
    """Says which rows these are among the stored ones."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | Sequence[Conversation]:
        """A row, or some."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        return self.stored[int(self.positions[index])]

    def __eq__(self, other: object) -> bool:
        """Whether the other holds equal rows in the same order."""
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(mine == others for mine, others in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def within(self, start: int, stop: int) -> np.ndarray:
        """int64: positions of the rows from stored row `start` up to but without stored row `stop`."""
        return within(self.positions, start, stop)

    def marks(self, start: int, stop: int) -> np.ndarray:
        """bool [stop - start]: which of the stored rows `start` to `stop - 1` are in the view."""
        marked = np.zeros(stop - start, dtype=bool)
        marked[self.within(start, stop) - start] = True
        return marked

    def key_blocks(self) -> Iterator[Keys]:
        """What is known of the rows without reading them, some thousands at a time; `start` is an index in the view."""
        start = 0
        for keys in self.stored.key_blocks() if len(self) else ():
            mine = self.within(keys.start, keys.start + len(keys.rows)) - keys.start
            yield Keys(start, keys.rows[mine], keys.prompts[mine], keys.conversations[mine])
            start += len(mine)

    def kept(self, keep: np.ndarray) -> "ConversationView":
        """The rows of which `keep` (bool [rows]) is true."""
        here = self.positions
        positions = here[keep] if isinstance(here, np.ndarray) else np.flatnonzero(keep) + here.start
        digest = hashlib.sha256(self.digest.encode() + np.packbits(keep).tobytes())
        return ConversationView(self.stored, positions, digest.hexdigest())
