"""Arrow files of one record batch, read without a copy."""

from pathlib import Path

import pyarrow as pa

SHARD_ROWS = 16_384
"""Rows of a file, so that a whole batch fits memory many times."""


def write_one_batch(path: Path, batch: pa.RecordBatch) -> None:
    """Write an Arrow file that can be memory-mapped without a copy."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def read_one_batch(path: Path) -> pa.RecordBatch:
    """The batch of such a file, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(0)
