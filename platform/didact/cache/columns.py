"""Columns on disk: arrays that are longer than memory should hold, and Arrow files that are read without a copy."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

SHARD_ROWS = 16_384
"""Rows of a file, so that a whole batch fits memory many times."""


class GrowingArray:
    """A one-dimensional `.npy` file of which the length is known only at the end."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._stream = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._length = 0
        self._write_header()

    def append(self, values: np.ndarray | Sequence[int]) -> None:
        """Write values at the end."""
        array = np.asarray(values, dtype=self._dtype)
        self._stream.write(array.tobytes())
        self._length += len(array)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the longest length, so that rewriting it moves no data.
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def __enter__(self) -> Self:
        """The file is open from the beginning."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the length and close."""
        self._stream.seek(0)
        self._write_header()
        self._stream.close()


def within(positions: np.ndarray | range, start: int, stop: int) -> np.ndarray:
    """Those of ascending `positions` from `start` up to before `stop`; int64, and of an array not copied."""
    if isinstance(positions, range):
        return np.arange(max(positions.start, start), min(positions.stop, stop))
    return positions[slice(*np.searchsorted(positions, [start, stop]))]


def write_one_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Write an Arrow file that can be memory-mapped without a copy."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_one_batch(path: Path) -> pa.RecordBatch:
    """The batch of such a file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)


def numbers(column: pa.Array) -> np.ndarray:
    """A column of numbers without a copy, or of flags as bool. Unlike `to_numpy` it does not load pandas."""
    if pa.types.is_boolean(column.type):
        return np.from_dlpack(column.cast(pa.uint8())).view(np.bool_)
    return np.from_dlpack(column)
