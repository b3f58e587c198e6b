"""Keys and values whose memory stays where it is from batch to batch, as a recorded step needs it."""

from dataclasses import dataclass

import torch
from transformers import DynamicCache

from didact.serving.engine.memory.row_cache import SPARE, RowLayer


@dataclass(frozen=True, slots=True)
class Window:
    """What a recorded step sees of the memory."""

    rows: int
    columns: int
    """From the first of the memory on; a mask hides what is no row's own."""
    newest: torch.Tensor
    """int64 [1] on the device: the column that the step writes."""


class FixedLayer(RowLayer):
    """One layer's keys and values. Columns are moved to the front of the memory before more of it is asked for.

    A recorded step looks at columns that no row has, too. A mask hides them, but not a NaN in them: so every column of
    a row in use is finite, whatever was there before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.window: Window | None = None
        """Set while a step is recorded."""

    @property
    def place(self) -> tuple[int, ...]:
        """Where the memory is and how large: recorded steps hold while it stays the same."""
        return tuple(part for memory in self._memory for part in (memory.data_ptr(), *memory.shape[:3:2]))

    @property
    def span(self) -> tuple[int, int]:
        """First column in use and the one behind the last."""
        return self._first, self._last

    @property
    def num_columns(self) -> int:
        """Of the memory."""
        return int(self._memory[0].shape[2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the columns that a forward pass computed; returns all columns to look at."""
        if self.window is None:
            return super().update(key_states, value_states, *args, **kwargs)
        rows, columns = self.window.rows, self.window.columns
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[:rows].index_copy_(2, self.window.newest, states)
        keys, values = (memory[:rows, :, :columns] for memory in self._memory)
        return keys, values

    def empty(self) -> None:
        """Have no rows, and keep the memory."""
        self._first = self._last = self._rows = 0

    def passed(self, steps: int) -> None:
        """Take note of columns that recorded steps have written, or with a number below 0 forget the last ones."""
        self._last += steps
        self._look()

    def make_room(self, rows: int) -> None:
        """For `rows` rows in all and one more column."""
        if rows > self._memory[0].shape[0] or self._last >= self.num_columns:
            with torch.inference_mode():
                self._grow(rows, self.get_seq_length(), 1)
                self._look()

    def keep(self, order: list[int], surplus: int) -> None:
        """Have row `order[i]` as row i, and forget the first `surplus` columns."""
        moved = [(row, source) for row, source in enumerate(order) if row != source]
        with torch.inference_mode():
            if moved:
                targets, sources = torch.tensor(moved, device=self._memory[0].device).t()
                for memory in self._memory:
                    memory[targets] = memory[sources]
            self._first += surplus
            self._rows = len(order)
            self._look()

    def join(self, other: RowLayer) -> None:
        """Take the rows of another layer below these; the last columns of both are side by side."""
        with torch.inference_mode():
            if not self.is_initialized:
                self.dtype, self.device, self.is_initialized = other.keys.dtype, other.keys.device, True
                self._memory = [
                    each.new_zeros(0, each.shape[1], 0, each.shape[3]) for each in (other.keys, other.values)
                ]
            for memory in self._memory:
                memory[self._rows : self._rows + len(other.keys)] = 0
            super().join(other)

    def _grow(self, rows: int, before: int, more: int) -> None:
        old_rows, _, old_columns, _ = self._memory[0].shape
        used, mine = self.get_seq_length(), slice(self._first, self._last)
        fits = rows <= old_rows and before + more + SPARE <= old_columns
        rows = old_rows if rows <= old_rows else rounded_rows(rows)
        columns = max(old_columns, rounded_columns(before + more + max(SPARE, before // 2)))
        for index, memory in enumerate(self._memory):
            kept = memory[: self._rows, :, mine]
            kept = kept.clone() if fits else kept
            room = memory if fits else memory.new_zeros(rows, memory.shape[1], columns, memory.shape[3])
            room[: self._rows, :, before - used : before] = kept
            self._memory[index] = room
        self._first, self._last = before - used, before


def fixed_cache(layers: list[FixedLayer]) -> DynamicCache:
    """A cache of these layers."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = FixedLayer
    cache.layers = layers
    return cache


def rounded_rows(rows: int) -> int:
    """Up to the next number of rows that steps are recorded for: at most half more than there are, or seven."""
    for step, most in ((1, 2), (2, 4), (4, 8), (8, 32), (16, 64), (32, 128)):
        if rows <= most:
            return -(-rows // step) * step
    return -(-rows // 64) * 64


def rounded_columns(columns: int) -> int:
    """Up to the next number of columns that steps are recorded for."""
    step = 128
    while columns > 8 * step:
        step *= 2
    return -(-columns // step) * step
