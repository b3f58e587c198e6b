"""All rows of a data set in one sequence."""

from collections.abc import Sequence
from typing import overload

from didact.datasets.conversation import Conversation, Dataset


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
