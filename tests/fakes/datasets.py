"""Data sets of made-up conversations, stored as `load_dataset` stores real ones."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from didact.cache.entry import CacheEntry
from didact.datasets import Conversation, Dataset
from didact.datasets.sources.conversion import ConversationBatch
from didact.datasets.stored.reader import StoredConversations
from didact.datasets.stored.view import ConversationView
from didact.datasets.stored.writer import ConversationWriter
from didact.files import fingerprint


def stored_dataset(
    folder: Path, name: str, rows: Sequence[Conversation], held_out: int = 0, parts: int = 1, shard_rows: int = 4
) -> Dataset:
    """The first `held_out` rows are held out; the rows are spread over parts, and those over shards."""
    address = fingerprint([[[m.content for m in row.messages], row.row] for row in rows])
    entry = CacheEntry(folder / "conversations" / address)
    pieces = np.array_split(np.arange(len(rows)), parts)

    def make(keys: list[str]) -> None:
        for key in keys:
            with ConversationWriter(entry, key, shard_rows) as writer:
                first = int(pieces[int(key)][0]) if len(pieces[int(key)]) else 0
                for position in pieces[int(key)].tolist():
                    # Rows count from the beginning of their part.
                    writer.add(ConversationBatch([replace(rows[position], row=rows[position].row - first)]))

    entry.fill([str(number) for number in range(parts)], {"source": name}, make)
    stored = StoredConversations(entry)
    train = ConversationView(stored, np.arange(held_out, len(rows)), f"train-{held_out}")
    return Dataset(
        name,
        train,
        ConversationView(stored, np.arange(held_out), f"held-{held_out}"),
        address,
        len(rows),
        0,
        None,
        places=(("made-up",),) * parts,
    )
