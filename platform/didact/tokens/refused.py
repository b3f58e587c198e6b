"""Rows that gave no sample, or not all that was asked of them, on disk beside the tokens of their part.

<part>.refused.jsonl    a line a conversation: its position in the part, its place in the source, why
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import numpy as np

from didact.cache.entry import CacheEntry, Shard, new_file, shard_of
from didact.datasets.conversation import Conversation, RowPlace
from didact.datasets.rows.quarantine import SHOWN_CHARACTERS, Reject
from didact.datasets.stored.view import ConversationView
from didact.tokens.encode import Encoded, Rejection

REFUSED_SUFFIX = ".refused.jsonl"
ANSWERS_LEFT_OUT = "answers_left_out"
"""Why a row is noted that taught some of its answers."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row of which something is not learned."""

    reject: Reject
    is_whole: bool
    """Nothing of it is learned; False where other answers are."""


class RefusedWriter:
    """Writes those of one part; there is no file where there are none."""

    def __init__(self, entry: CacheEntry, key: str) -> None:
        self._path = entry.folder / f"{key}{REFUSED_SUFFIX}"
        self._open, self._rows = ExitStack(), 0
        self._stream: TextIO | None = None

    def add(self, position: int, conversation: Conversation, encoded: Encoded) -> None:
        """Note a conversation, unless all of it is learned."""
        if not isinstance(encoded.result, Rejection) and not encoded.left_out:
            return
        if self._stream is None:
            beside = self._open.enter_context(new_file(self._path))
            self._stream = self._open.enter_context(beside.open("w", encoding="utf-8"))
        line = {"position": position, **asdict(_reject(conversation, encoded))}
        self._stream.write(json.dumps(line) + "\n")
        self._rows += 1

    def close(self, *raised: Any) -> tuple[Shard, ...]:
        """Finish the file, or after an error leave nothing of it; returns what was written."""
        self._open.__exit__(*(raised or (None, None, None)))
        return (shard_of(self._path, self._rows),) if self._rows and not any(raised) else ()


def refused_rows(
    tokens: CacheEntry, views: Sequence[ConversationView], places: Sequence[Sequence[str]]
) -> Iterator[RefusedRow]:
    """Those among some rows of a source that are not learned, or not wholly.

    Args:
        tokens: the source's samples; must be complete.
        views: the rows.
        places: of each part, the names of its files now.
    """
    for part, (record, names) in enumerate(zip(tokens.manifest() or (), places, strict=True)):
        for shard in record.shards:
            if not shard.name.endswith(REFUSED_SUFFIX):
                continue
            starts = views[0].stored.first_positions
            wanted = np.any([view.marks(starts[part], starts[part + 1]) for view in views], axis=0)
            with tokens.sound_shard(shard).open(encoding="utf-8") as stream:
                for line in stream:
                    value = json.loads(line)
                    if wanted[value.pop("position")]:
                        refused = Reject(**{**value, "file": names[value["number"]]})
                        yield RefusedRow(refused, is_whole=refused.reason != ANSWERS_LEFT_OUT)


def _reject(conversation: Conversation, encoded: Encoded) -> Reject:
    if isinstance(encoded.result, Rejection):
        reason, detail = encoded.result.reason, encoded.result.detail
    else:
        count = len(encoded.left_out)
        reason, detail = ANSWERS_LEFT_OUT, f"{count} {'answer' if count == 1 else 'answers'}: {encoded.left_out[0]}"
    place = conversation.place or RowPlace(0, conversation.row + 1, None)
    said = [{"role": each.role, "content": each.written} for each in conversation.messages]
    raw = json.dumps({"messages": said}, ensure_ascii=False)[:SHOWN_CHARACTERS]
    return Reject("", place.line, place.byte_offset, reason, detail[:SHOWN_CHARACTERS], raw, place.file)
