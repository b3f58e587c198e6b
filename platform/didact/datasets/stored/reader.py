"""Conversations read back from disk: by position, or all keys at once, or the batches of a part."""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from didact.cache.columns import numbers, read_one_batch, within
from didact.cache.entry import CacheEntry, Shard
from didact.datasets.conversation import Conversation, Message, RowPlace, ToolUse
from didact.datasets.forms.table_of_forms import Noted
from didact.datasets.rows.quarantine import Reject
from didact.datasets.stored.writer import KEY
from didact.errors import DataError


@dataclass(frozen=True, slots=True)
class Keys:
    """What is known of a shard's rows without reading them."""

    start: int
    """Place of the first among all accepted rows of the source."""
    rows: np.ndarray
    """int64 [rows]: index of the raw row in the source."""
    prompts: np.ndarray
    """S16 [rows]: digest of all messages before the last answer."""
    conversations: np.ndarray
    """S16 [rows]: digest of all messages."""


class StoredConversations(Sequence[Conversation]):
    """All accepted rows of a source in its order, read from disk as they are asked for."""

    def __init__(self, entry: CacheEntry) -> None:
        records = entry.manifest()
        if records is None:
            raise DataError(f"{entry.folder} holds no complete conversations")
        self.entry = entry
        self.records = records
        self._held = entry.hold()
        self._texts = [
            (shard, first_row)
            for record, first_row in zip(records, self.first_rows, strict=True)
            for shard in record.shards
            if shard.name.endswith(".texts.arrow")
        ]
        self._starts = [0, *accumulate(shard.rows for shard, _ in self._texts)]
        self._num_accepted = sum(record.counts["accepted"] for record in records)
        # Its own for each source, so that walking through one does not push out another's; without a cycle through
        # this object, which would keep the cache held.
        self._decoded = lru_cache(maxsize=4)(partial(_decode, entry, self._texts))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens it again."""
        return StoredConversations, (self.entry,)

    @property
    def first_rows(self) -> list[int]:
        """Index in the source of each part's first raw row."""
        return [0, *accumulate(record.counts["rows"] for record in self.records)][:-1]

    @property
    def first_positions(self) -> list[int]:
        """Place of each part's first row among the accepted ones, and the number of all."""
        return [0, *accumulate(record.counts["accepted"] for record in self.records)]

    @property
    def num_rows(self) -> int:
        """Rows read, accepted or not."""
        return sum(record.counts["rows"] for record in self.records)

    @property
    def rejected(self) -> Counter[str]:
        """Reason -> rows."""
        return sum((Counter(record.counts["rejected"]) for record in self.records), Counter())

    @property
    def noted(self) -> Noted:
        """What was seen in the rows; nothing for conversations that were stored before it was taken down."""
        noted = Noted()
        for record in self.records:
            noted.unused.update(record.counts.get("unused", {}))
            noted.changed.update(record.counts.get("changed", {}))
        return noted

    def __len__(self) -> int:
        """Accepted rows."""
        return self._num_accepted

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | Sequence[Conversation]:
        """An accepted row, or some."""
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{len(self)} conversations; found index {index}")
        number = bisect_right(self._starts, position) - 1
        shard, _ = self._texts[number]
        ends = list(accumulate(shard.batches))
        within = position - self._starts[number]
        batch = bisect_right(ends, within)
        return self._decoded(number, batch)[within - (ends[batch - 1] if batch else 0)]

    def key_blocks(self) -> Iterator[Keys]:
        """The keys of all accepted rows, a shard at a time."""
        start = 0
        for record, first_row in zip(self.records, self.first_rows, strict=True):
            for shard in record.shards:
                if shard.name.endswith(".keys.arrow"):
                    batch = read_one_batch(self.entry.sound_shard(shard))
                    rows = numbers(batch.column(0))
                    yield Keys(start, rows + first_row, *(_key_array(batch.column(column)) for column in (1, 2)))
                    start += shard.rows

    def rejects(self, files: Sequence[Sequence[str]]) -> Iterator[Reject]:
        """The refused rows.

        Args:
            files: of each part, the names of its files now; the same bytes may have lain elsewhere when they were read.
        """
        for record, names in zip(self.records, files, strict=True):
            for shard in record.shards:
                if shard.name.endswith(".rejects.jsonl"):
                    with self.entry.sound_shard(shard).open(encoding="utf-8") as stream:
                        for line in stream:
                            refused = Reject(**json.loads(line))
                            yield replace(refused, file=names[refused.number])


def stored_batches(
    entry: CacheEntry, key: str, chosen: np.ndarray | None = None
) -> Iterator[tuple[int, list[Conversation]]]:
    """The accepted rows of a part, a batch at a time, each with the position of its first row in the part.

    Args:
        entry: the source's conversations.
        key: the part, which must be finished.
        chosen: int64: positions in the part, ascending; batches that hold none of them are passed over. None for all.

    Raises:
        DataError: the part is not there, or not as it was written.
    """
    record = entry.record(key)
    if record is None:
        raise DataError(f"{entry.folder} has no finished part {key}")
    start = 0
    for shard in record.shards:
        for number, rows in enumerate(shard.batches):
            stop = start + rows
            if chosen is None or len(within(chosen, start, stop)):
                yield start, _conversations(_text_reader(entry.sound_shard(shard)).get_batch(number), 0)
            start = stop


def _decode(entry: CacheEntry, texts: Sequence[tuple[Shard, int]], number: int, batch: int) -> list[Conversation]:
    shard, first_row = texts[number]
    return _conversations(_text_reader(entry.sound_shard(shard)).get_batch(batch), first_row)


def _key_array(column: pa.Array) -> np.ndarray:
    return np.frombuffer(column.buffers()[1], dtype=KEY)[column.offset : column.offset + len(column)]


def _text_reader(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _conversations(batch: pa.RecordBatch, first_row: int) -> list[Conversation]:
    listed = batch.column(0)
    roles, contents, *more = (listed.values.field(index).to_pylist() for index in range(listed.values.type.num_fields))
    # Conversations that were stored before turns had tools and marks have two fields; all of their answers are learned.
    # Before rows had places, there were four columns.
    tools, learned = more or (repeat(None), repeat(True))
    messages = [
        Message(role, content, tools=None if use is None else ToolUse.from_json(use), learned=mark)
        for role, content, use, mark in zip(roles, contents, tools, learned, strict=False)
    ]
    offsets = listed.offsets.to_pylist()
    stands = _columns(batch, 4, 5, 6) if batch.num_columns > 4 else repeat((None, None, None), batch.num_rows)
    places = [None if line is None else RowPlace(file, line, byte) for file, line, byte in stands]
    turns = (tuple(messages[start:stop]) for start, stop in pairwise(offsets))
    return [
        Conversation(turn, first_row + row, answer, rationale, place)
        for turn, (row, answer, rationale), place in zip(turns, _columns(batch, 1, 2, 3), places, strict=True)
    ]


def _columns(batch: pa.RecordBatch, *indices: int) -> Iterator[tuple[Any, ...]]:
    return zip(*(batch.column(index).to_pylist() for index in indices), strict=True)
