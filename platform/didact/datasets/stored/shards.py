"""Conversations on disk. A part becomes pairs of Arrow files and a list of refused rows:

    <part>-0000.texts.arrow    compressed record batches: messages, row, answer, rationale
    <part>-0000.keys.arrow     one plain record batch, memory-mapped: row, digest of the prompt, digest of all said
    <part>.rejects.jsonl       refused rows with place and reason

Choices and filters of rows read the keys only; texts are decoded a batch at a time when somebody looks at them.
"""

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, TextIO, overload

import numpy as np
import pyarrow as pa

from didact.cache.arrow import SHARD_ROWS, read_one_batch, write_one_batch
from didact.cache.entry import CacheEntry, PartRecord, Shard, new_file, shard_of
from didact.datasets.conversation import Conversation, Message
from didact.datasets.rows.quarantine import Reject
from didact.datasets.sources.conversion import Batch
from didact.errors import DataError

KEY = np.dtype("S16")
"""A digest of 16 bytes; equal values are equal digests."""
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
KEY_TYPE = pa.binary(16)
_TEXTS = pa.schema([("messages", _MESSAGES), ("row", pa.int64()), ("answer", pa.string()), ("rationale", pa.string())])
_KEYS = pa.schema([("row", pa.int64()), ("prompt", KEY_TYPE), ("conversation", KEY_TYPE)])
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


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


class ConversationWriter:
    """Writes one part; memory holds a batch and the keys of a shard. A block that ends well declares it finished."""

    def __init__(
        self,
        entry: CacheEntry,
        key: str,
        shard_rows: int = SHARD_ROWS,
        *,
        texts: bool = True,
        kept: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            entry: where the part goes.
            key: its name.
            shard_rows: rows of a shard.
            texts: whether texts are written, and not the keys alone.
            kept: int64: places, among the part's accepted rows, of those that are written; None for all.
        """
        self._entry, self._key, self._shard_rows = entry, key, shard_rows
        self._with_texts, self._kept = texts, kept
        self._num_rows = self._num_seen = self._num_shards = 0
        self._shards: list[Shard] = []
        self._texts, self._rejects = ExitStack(), ExitStack()
        self._reject_path = entry.folder / f"{key}.rejects.jsonl"
        self._writer: pa.RecordBatchFileWriter | None = None
        self._reject_stream: TextIO | None = None
        self._keys: list[tuple[int, bytes, bytes]] = []
        self._batches: list[int] = []
        self._num_accepted = 0
        self._reasons: Counter[str] = Counter()

    def __enter__(self) -> Self:
        """Nothing is written before the first batch."""
        return self

    def __exit__(self, *raised: Any) -> None:
        """Finish the part, or after an error leave nothing of its open shard."""
        if raised[0] is not None:
            self._texts.__exit__(*raised)
            self._rejects.__exit__(*raised)
            return
        self._close_shard()
        self._rejects.close()
        if self._reasons:
            self._shards.append(shard_of(self._reject_path, self._reasons.total()))
        counts = {
            "rows": self._num_rows,
            "accepted": self._num_accepted,
            "rejected": dict(sorted(self._reasons.items())),
        }
        self._entry.add(PartRecord(self._key, tuple(self._shards), counts))

    def add(self, batch: Batch) -> None:
        """Write some rows."""
        for refused in batch.rejects:
            self._add_reject(refused)
        self._num_rows += batch.num_rows
        accepted = self._chosen(batch.accepted)
        if not accepted:
            return
        if self._with_texts:
            self._write_texts(accepted)
        self._keys += [(each.row, prompt_key(each.prompt), prompt_key(each.messages)) for each in accepted]
        self._num_accepted += len(accepted)
        if len(self._keys) >= self._shard_rows:
            self._close_shard()

    def _chosen(self, accepted: list[Conversation]) -> list[Conversation]:
        start = self._num_seen
        self._num_seen += len(accepted)
        if self._kept is None:
            return accepted
        here = self._kept[slice(*np.searchsorted(self._kept, [start, self._num_seen]))]
        return [accepted[place - start] for place in here.tolist()]

    def _write_texts(self, accepted: list[Conversation]) -> None:
        if self._writer is None:
            beside = self._texts.enter_context(new_file(self._path("texts")))
            sink = self._texts.enter_context(pa.OSFile(str(beside), "wb"))
            self._writer = self._texts.enter_context(pa.ipc.new_file(sink, _TEXTS, options=_COMPRESSED))
        self._writer.write_batch(_text_batch(accepted))
        self._batches.append(len(accepted))

    def _path(self, kind: str) -> Path:
        return self._entry.folder / f"{self._key}-{self._num_shards:04d}.{kind}.arrow"

    def _add_reject(self, refused: Reject) -> None:
        if self._reject_stream is None:
            beside = self._rejects.enter_context(new_file(self._reject_path))
            self._reject_stream = self._rejects.enter_context(beside.open("w", encoding="utf-8"))
        # ASCII with escapes, because the name of a file need not be UTF-8.
        self._reject_stream.write(json.dumps(asdict(refused)) + "\n")
        self._reasons[refused.reason] += 1

    def _close_shard(self) -> None:
        if not self._keys:
            return
        self._texts.close()
        rows, prompts, conversations = zip(*self._keys, strict=True)
        if self._writer is not None:
            self._shards.append(shard_of(self._path("texts"), len(rows), self._batches))
            self._writer = None
        with new_file(self._path("keys")) as beside:
            columns = [pa.array(rows, pa.int64()), pa.array(prompts, KEY_TYPE), pa.array(conversations, KEY_TYPE)]
            write_one_batch(beside, pa.record_batch(columns, schema=_KEYS))
        self._shards.append(shard_of(self._path("keys"), len(rows)))
        self._keys, self._batches = [], []
        self._num_shards += 1


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
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{len(self)} conversations; found index {index}")
        number = bisect_right(self._starts, place) - 1
        shard, _ = self._texts[number]
        ends = list(accumulate(shard.batches))
        within = place - self._starts[number]
        batch = bisect_right(ends, within)
        return self._decoded(number, batch)[within - (ends[batch - 1] if batch else 0)]

    def key_blocks(self) -> Iterator[Keys]:
        """The keys of all accepted rows, a shard at a time."""
        start = 0
        for record, first_row in zip(self.records, self.first_rows, strict=True):
            for shard in record.shards:
                if shard.name.endswith(".keys.arrow"):
                    batch = read_one_batch(self.entry.sound_shard(shard))
                    rows = batch.column(0).to_numpy(zero_copy_only=True)
                    yield Keys(start, rows + first_row, *(_key_array(batch.column(column)) for column in (1, 2)))
                    start += shard.rows

    def rejects(self, part: int, places: Sequence[str]) -> Iterator[Reject]:
        """The refused rows of a part.

        Args:
            part: its number.
            places: names of its files now; the same bytes may have lain elsewhere when they were read.
        """
        for shard in self.records[part].shards:
            if shard.name.endswith(".rejects.jsonl"):
                with self.entry.sound_shard(shard).open(encoding="utf-8") as stream:
                    for line in stream:
                        refused = Reject(**json.loads(line))
                        yield replace(refused, file=places[refused.number])


def _decode(entry: CacheEntry, texts: Sequence[tuple[Shard, int]], number: int, batch: int) -> list[Conversation]:
    shard, first_row = texts[number]
    return _conversations(_text_reader(entry.sound_shard(shard)).get_batch(batch), first_row)


def stored_batches(
    entry: CacheEntry, key: str, chosen: np.ndarray | None = None
) -> Iterator[tuple[int, list[Conversation]]]:
    """The accepted rows of a part, a batch at a time, each with the place of its first row in the part.

    Args:
        entry: the source's conversations.
        key: the part, which must be finished.
        chosen: int64: places in the part, ascending; batches that hold none of them are passed over. None for all.

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
            if chosen is None or np.diff(np.searchsorted(chosen, [start, stop]))[0]:
                yield start, _conversations(_text_reader(entry.sound_shard(shard)).get_batch(number), 0)
            start = stop


def prompt_key(messages: Sequence[Message]) -> bytes:
    """16 bytes that are equal for equal messages."""
    # No message holds a NUL, so nothing but equal messages reads the same.
    return blake2b("".join(f"{each.role}\0{each.content}\0" for each in messages).encode(), digest_size=16).digest()


def _key_array(column: pa.Array) -> np.ndarray:
    return np.frombuffer(column.buffers()[1], dtype=KEY)[column.offset : column.offset + len(column)]


def _text_batch(conversations: Sequence[Conversation]) -> pa.RecordBatch:
    offsets = [0, *accumulate(len(each.messages) for each in conversations)]
    roles = pa.array([message.role for each in conversations for message in each.messages], pa.string())
    contents = pa.array([message.content for each in conversations for message in each.messages], pa.string())
    messages = pa.StructArray.from_arrays([roles, contents], ["role", "content"])
    columns = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages),
        pa.array([each.row for each in conversations], pa.int64()),
        pa.array([each.answer for each in conversations], pa.string()),
        pa.array([each.rationale for each in conversations], pa.string()),
    ]
    return pa.record_batch(columns, schema=_TEXTS)


def _text_reader(path: Path) -> pa.RecordBatchFileReader:
    return pa.ipc.open_file(pa.memory_map(str(path)))


def _conversations(batch: pa.RecordBatch, first_row: int) -> list[Conversation]:
    listed = batch.column(0)
    roles, contents = (listed.values.field(index).to_pylist() for index in (0, 1))
    messages = [Message(role, content) for role, content in zip(roles, contents, strict=True)]
    offsets = listed.offsets.to_pylist()
    rows, answers, rationales = (batch.column(index).to_pylist() for index in (1, 2, 3))
    return [
        Conversation(tuple(messages[start:stop]), first_row + row, answer, rationale)
        for start, stop, row, answer, rationale in zip(offsets, offsets[1:], rows, answers, rationales, strict=False)
    ]
