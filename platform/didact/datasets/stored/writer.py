"""Conversations on disk. A part becomes pairs of Arrow files and a list of refused rows:

    <part>-0000.texts.arrow    compressed record batches: messages, row, answer, rationale, place
    <part>-0000.keys.arrow     one plain record batch, memory-mapped: row, digest of the prompt, digest of all said
    <part>.rejects.jsonl       refused rows with place and reason

Choices and filters of rows read the keys only; texts are decoded a batch at a time when somebody looks at them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import pyarrow as pa

from didact.cache.columns import SHARD_ROWS, within, write_one_batch
from didact.cache.entry import CacheEntry, PartRecord, Shard, new_file, shard_of
from didact.datasets.conversation import Conversation, Message
from didact.datasets.forms.table_of_forms import Noted
from didact.datasets.rows.quarantine import Reject
from didact.datasets.sources.conversion import ConversationBatch

KEY = np.dtype("S16")
"""A digest of 16 bytes; equal values are equal digests."""
_TURN = [("role", pa.string()), ("content", pa.string()), ("tools", pa.string()), ("learned", pa.bool_())]
_MESSAGES = pa.list_(pa.struct(_TURN))
KEY_TYPE = pa.binary(16)
_PLACE = [("file", pa.int32()), ("line", pa.int64()), ("byte_offset", pa.int64())]
_TEXTS = pa.schema(
    [("messages", _MESSAGES), ("row", pa.int64()), ("answer", pa.string()), ("rationale", pa.string()), *_PLACE]
)
_KEYS = pa.schema([("row", pa.int64()), ("prompt", KEY_TYPE), ("conversation", KEY_TYPE)])
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")


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
            kept: int64: positions, among the part's accepted rows, of those that are written; None for all.
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
        self._noted = Noted()

    def __enter__(self) -> Self:
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
            "unused": dict(sorted(self._noted.unused.items())),
            "changed": dict(sorted(self._noted.changed.items())),
        }
        self._entry.add(PartRecord(self._key, tuple(self._shards), counts))

    def add(self, batch: ConversationBatch) -> list[Conversation]:
        """Write some rows; returns the accepted ones that are stored."""
        for refused in batch.rejects:
            self._add_reject(refused)
        self._num_rows += batch.num_rows
        self._noted.unused.update(batch.noted.unused)
        self._noted.changed.update(batch.noted.changed)
        accepted = self._chosen(batch.accepted)
        if not accepted:
            return []
        if self._with_texts:
            self._write_texts(accepted)
        self._keys += [(each.row, prompt_key(each.prompt), prompt_key(each.messages)) for each in accepted]
        self._num_accepted += len(accepted)
        if len(self._keys) >= self._shard_rows:
            self._close_shard()
        return accepted

    def _chosen(self, accepted: list[Conversation]) -> list[Conversation]:
        start = self._num_seen
        self._num_seen += len(accepted)
        if self._kept is None:
            return accepted
        here = within(self._kept, start, self._num_seen)
        return [accepted[position - start] for position in here.tolist()]

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


def prompt_key(messages: Sequence[Message]) -> bytes:
    """16 bytes that are equal for equal messages."""
    # No message holds a NUL, so nothing but equal messages reads the same.
    return blake2b("".join(map(_all_of, messages)).encode(), digest_size=16).digest()


def _all_of(message: Message) -> str:
    said = f"{message.role}\0{message.content}\0"
    return said if message.tools is None else f"{said}{message.tools.to_json()}\0"


def _text_batch(conversations: Sequence[Conversation]) -> pa.RecordBatch:
    offsets = [0, *accumulate(len(each.messages) for each in conversations)]
    roles = pa.array([message.role for each in conversations for message in each.messages], pa.string())
    contents = pa.array([message.content for each in conversations for message in each.messages], pa.string())
    tools = pa.array(
        [message.tools and message.tools.to_json() for each in conversations for message in each.messages], pa.string()
    )
    learned = pa.array([message.learned for each in conversations for message in each.messages], pa.bool_())
    messages = pa.StructArray.from_arrays([roles, contents, tools, learned], [name for name, _ in _TURN])
    columns = [
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages),
        pa.array([each.row for each in conversations], pa.int64()),
        pa.array([each.answer for each in conversations], pa.string()),
        pa.array([each.rationale for each in conversations], pa.string()),
        *(pa.array([getattr(each.place, name, None) for each in conversations], kind) for name, kind in _PLACE),
    ]
    return pa.record_batch(columns, schema=_TEXTS)
