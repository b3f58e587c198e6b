"""Keys and values of a batch in memory with room to spare, so that neither a step nor a change of rows copies all."""

import functools

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE = 64
"""Columns beyond what is asked for when memory grows; it grows by half at least."""


class RowLayer(DynamicLayer):
    """Keys and values of one layer, [rows, heads, columns, head size] each: the part in use of a larger memory.

    New columns are written behind the last one, new rows below, both in place. What a row has before its first column
    is 0: a mask hides it, but not from a NaN that another row left there.
    """

    def __init__(self, rows: int = 0) -> None:
        """Empty, for so many rows at least."""
        super().__init__()
        self.is_initialized: bool
        self._memory: list[torch.Tensor] = []
        self._first, self._last, self._rows = 0, 0, rows

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: object, **_kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the columns that a forward pass computed for the first so many rows; returns all columns of these.

        The other rows have 0 there: nothing is ever written behind the last column.
        """
        with torch.inference_mode():
            rows, count = key_states.shape[0], key_states.shape[2]
            if not self.is_initialized:
                self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
                self._rows = max(rows, self._rows)
                self._memory = [each.new_zeros(self._rows, each.shape[1], count + SPARE, each.shape[3]) for each in
                                (key_states, value_states)]  # fmt: skip
            if self._last + count > self._memory[0].shape[2]:
                self._grow(self._rows, self.get_seq_length(), count)
            new = slice(self._last, self._last + count)
            for memory, states in zip(self._memory, (key_states, value_states), strict=True):
                memory[:rows, :, new] = states
            self._last += count
            self._look()
            return self.keys[:rows], self.values[:rows]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self._last - self._first

    def keep(self, order: list[int], surplus: int) -> None:
        """Have row `order[i]` as row i, and forget the first `surplus` columns."""
        with torch.inference_mode():
            self._first += surplus
            for memory in self._memory:
                for row, source in enumerate(order):
                    if row != source:  # `source` is never overwritten before, see `keeping_order`
                        memory[row, :, self._first : self._last] = memory[source, :, self._first : self._last]
            self._rows = len(order)
            self._look()

    def forget(self, count: int) -> None:
        """Forget the last columns."""
        with torch.inference_mode():
            for memory in self._memory:
                memory[: self._rows, :, self._last - count : self._last] = 0
            self._last -= count
            self._look()

    def reorder(self, columns: torch.Tensor, surplus: int) -> None:
        """Have column `columns[row, i]` of each row as its column i, and forget the first `surplus`."""
        with torch.inference_mode():
            for memory in self._memory:
                used = memory[: self._rows, :, self._first : self._last]
                used.copy_(used.gather(2, columns[:, None, :, None].expand_as(used)))
            self._first += surplus
            self._look()

    def join(self, other: "RowLayer") -> None:
        """Take the rows of another layer below these; the last columns of both are side by side."""
        with torch.inference_mode():
            mine, theirs = self.get_seq_length(), other.get_seq_length()
            rows = self._rows + other._rows
            if rows > self._memory[0].shape[0] or max(mine, theirs) > self._last:
                self._grow(rows, max(mine, theirs), 0)
            first = self._last - max(mine, theirs)
            for memory, others in zip(self._memory, (other.keys, other.values), strict=True):
                memory[: self._rows, :, first : self._first] = 0
                memory[self._rows : rows, :, first : self._last - theirs] = 0
                memory[self._rows : rows, :, self._last - theirs : self._last] = others
            self._first, self._rows = first, rows
            self._look()

    def _grow(self, rows: int, before: int, more: int) -> None:
        """Make room for `rows` and `more` columns behind the last one, which has at least `before` up to it."""
        old_rows = self._memory[0].shape[0]
        rows = old_rows if rows <= old_rows else max(rows, 2 * old_rows)
        used = self.get_seq_length()
        columns = max(before + more + SPARE, 3 * max(used, before) // 2)
        for index, memory in enumerate(self._memory):
            grown = memory.new_zeros(rows, memory.shape[1], columns, memory.shape[3])
            grown[: self._rows, :, before - used : before] = memory[: self._rows, :, self._first : self._last]
            self._memory[index] = grown
        self._first, self._last = before - used, before

    def _look(self) -> None:
        self.keys, self.values = (each[: self._rows, :, self._first : self._last] for each in self._memory)


def row_cache(trained: Cache | None = None, rows: int = 0) -> DynamicCache:
    """A cache of `RowLayer`s: empty, for `rows` rows at least, or one that begins with trained keys and values."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = functools.partial(RowLayer, rows)
    for index, layer in enumerate(trained.layers if trained is not None else ()):
        cache.update(layer.keys, layer.values, index)
    return cache


def keeping_order(kept: list[int]) -> list[int]:
    """Rows in the order in which as few as possible have to move: those behind fill the places of those that left."""
    count = len(kept)
    stay = {row for row in kept if row < count}
    movers = [row for row in kept if row >= count]
    return [row if row in stay else movers.pop() for row in range(count)]
