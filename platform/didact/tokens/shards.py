"""Tokens on disk: one plain Arrow record batch a shard, memory-mapped, so that numpy sees it without a copy.

    <part>-0000.tokens.arrow    ids, mask, position, row, supervised, truncated, left_out, outcome
    <part>.refused.jsonl        see `refused`

A row of a shard is a sample, or a conversation that cannot be learned from: its ids are empty and its outcome says why.
Samples of one conversation share its position, and the first of them bears its counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from didact.cache.columns import SHARD_ROWS, numbers, read_one_batch, write_one_batch
from didact.cache.entry import CacheEntry, PartRecord, Shard, new_file, shard_of
from didact.datasets.conversation import Conversation
from didact.tokens.encode import Encoded, Rejection
from didact.tokens.refused import REFUSED_SUFFIX, RefusedWriter
from didact.tokens.types import Sample

OUTCOMES = (
    "sample",
    "template_refused",
    "special_text",
    "no_answer",
    "answer_cut",
    "too_long",
    "no_tool_syntax",
    "not_to_learn",
)
"""What became of a conversation; its position here is the number in the shard."""
_SHARD_TOKENS = 1 << 23
_SCHEMA = pa.schema(
    [
        ("ids", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("position", pa.int64()),
        ("row", pa.int64()),
        ("supervised", pa.int32()),
        ("truncated", pa.int32()),
        ("left_out", pa.int32()),
        ("outcome", pa.int8()),
    ]
)


class TokenWriter:
    """Writes one part; memory holds a shard. A block that ends well declares it finished."""

    def __init__(self, entry: CacheEntry, key: str, shard_rows: int = SHARD_ROWS) -> None:
        self._entry, self._key, self._shard_rows = entry, key, shard_rows
        self._refused = RefusedWriter(entry, key)
        self._shards: list[Shard] = []
        self._rows: list[tuple[int, int, Encoded]] = []
        self._num_open_tokens = 0
        self._num_tokens = self._num_samples = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        """Finish the part, unless an error ended it."""
        refused = self._refused.close(*raised)
        if raised[0] is None:
            self._close_shard()
            counts = {"samples": self._num_samples, "tokens": self._num_tokens}
            self._entry.add(PartRecord(self._key, (*self._shards, *refused), counts))

    @property
    def num_tokens(self) -> int:
        """Tokens written so far."""
        return self._num_tokens + self._num_open_tokens

    def add(self, positions: Sequence[int], conversations: Sequence[Conversation], encoded: Sequence[Encoded]) -> None:
        """Write some conversations.

        Args:
            positions: position of each among the accepted rows of the part.
            conversations: what was encoded; `row` counts from the part's first.
            encoded: what became of each.
        """
        for position, conversation, result in zip(positions, conversations, encoded, strict=True):
            self._refused.add(position, conversation, result)
            self._rows.append((position, conversation.row, result))
            self._rows += [(position, conversation.row, Encoded(sample)) for sample in result.further]
            self._num_open_tokens += sum(len(sample.ids) for sample in result.samples)
            if len(self._rows) >= self._shard_rows or self._num_open_tokens >= _SHARD_TOKENS:
                self._close_shard()

    def _close_shard(self) -> None:
        if not self._rows:
            return
        path = self._entry.folder / f"{self._key}-{len(self._shards):04d}.tokens.arrow"
        with new_file(path) as partial:
            write_one_batch(partial, _batch(self._rows))
        self._shards.append(shard_of(path, len(self._rows)))
        self._num_samples += sum(isinstance(result.result, Sample) for _, _, result in self._rows)
        self._num_tokens, self._num_open_tokens, self._rows = self.num_tokens, 0, []


def token_shards(record: PartRecord) -> tuple[Shard, ...]:
    """The shards of a part that hold samples."""
    return tuple(shard for shard in record.shards if not shard.name.endswith(REFUSED_SUFFIX))


@dataclass(frozen=True)
class TokenShard:
    """A shard that has been opened."""

    batch: pa.RecordBatch

    @classmethod
    def open(cls, path: Path) -> "TokenShard":
        """Map a shard into memory."""
        return cls(read_one_batch(path))

    def sample(self, row: int) -> Sample:
        """Row `row` as arrays of its own."""
        start, stop = int(self.offsets[row]), int(self.offsets[row + 1])
        # Masks are bits on disk; only the bytes that hold this sample's are unpacked.
        bits = np.unpackbits(self._mask_bytes[start // 8 : -(-stop // 8)], bitorder="little")
        return Sample(np.array(self.ids[start:stop]), bits[start % 8 :][: stop - start].astype(bool))

    @cached_property
    def offsets(self) -> np.ndarray:
        """int32 [rows + 1]: row i has ids[offsets[i]:offsets[i + 1]]."""
        return numbers(self.batch.column("ids").offsets)

    @cached_property
    def ids(self) -> np.ndarray:
        """int32 [tokens]."""
        return numbers(self.batch.column("ids").values)

    @cached_property
    def _mask_bytes(self) -> np.ndarray:
        values = self.batch.column("mask").values
        return np.frombuffer(values.buffers()[1] or b"", dtype=np.uint8)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers or flags, [rows]."""
        return numbers(self.batch.column(name))


def _batch(rows: Sequence[tuple[int, int, Encoded]]) -> pa.RecordBatch:
    results = [encoded.result for _, _, encoded in rows]
    samples = [result for result in results if isinstance(result, Sample)]
    lengths = [len(result.ids) if isinstance(result, Sample) else 0 for result in results]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    ids = np.concatenate([sample.ids for sample in samples]) if samples else np.zeros(0, np.int32)
    mask = np.concatenate([sample.mask for sample in samples]) if samples else np.zeros(0, bool)
    supervised = np.array([_supervised(result) for result in results], dtype=np.int32)
    columns = [
        pa.ListArray.from_arrays(offsets, pa.array(ids)),
        pa.ListArray.from_arrays(offsets, pa.array(mask)),
        pa.array([position for position, _, _ in rows], pa.int64()),
        pa.array([row for _, row, _ in rows], pa.int64()),
        pa.array(supervised),
        pa.array([encoded.truncated for _, _, encoded in rows], pa.int32()),
        pa.array([len(encoded.left_out) for _, _, encoded in rows], pa.int32()),
        pa.array([OUTCOMES.index(result.reason) if isinstance(result, Rejection) else 0 for result in results], "int8"),
    ]
    return pa.record_batch(columns, schema=_SCHEMA)


def _supervised(result: Sample | Rejection) -> int:
    # A first token that is learned has no predecessor that could predict it.
    return int(np.count_nonzero(result.mask[1:])) if isinstance(result, Sample) else 0
