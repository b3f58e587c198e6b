"""Which rows are trained on and which are held out: a function of the seed and each row's position, nothing else.

Works on the keys of stored conversations, a shard at a time; the positions of the chosen rows are kept beside them, so
that a choice is made once.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from didact import files
from didact.cache.columns import GrowingArray
from didact.datasets.stored.reader import Keys, StoredConversations
from didact.datasets.stored.writer import KEY

_VERSION = 1
_DAMAGED = (OSError, ValueError, EOFError)
"""What reading a choice raises that is not there, or not whole."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen rows as positions among the accepted ones, each part in the source's order."""

    train: np.ndarray | range
    """int64 [rows]."""
    held_out: np.ndarray | range
    """int64 [rows]."""
    num_leaks: int
    """Rows passed over because a held-out row has the same prompt."""
    digest: str
    """Says which choice this is."""


def select(stored: StoredConversations, *, max_rows: int | None, held_out_rows: int, seed: int) -> Selection:
    """Hold rows out, drop what would leak them, and keep at most `max_rows` in all.

    A row's rank is a hash of (seed, purpose, row), so the choice survives repairs of other rows, the held-out rows are
    the same for every `max_rows`, and a smaller `max_rows` takes a subset of a larger one.

    Args:
        stored: accepted rows.
        max_rows: rows in both parts together; None for all.
        held_out_rows: rows set aside.
        seed: `data.seed`.
    """
    if max_rows is None and not held_out_rows:
        return Selection(range(len(stored)), range(0), 0, "all")
    digest = files.fingerprint([_VERSION, max_rows, held_out_rows, seed])
    folder = stored.entry.folder / "choices" / digest
    with contextlib.suppress(*_DAMAGED):
        return _open(folder, digest)
    with stored.entry.lock():
        with contextlib.suppress(*_DAMAGED):
            return _open(folder, digest)
        with files.new_folder(folder, lambda scratch: _open(scratch, digest)) as scratch:
            _choose(stored, scratch, max_rows, held_out_rows, seed)
    return _open(folder, digest)


def _open(folder: Path, digest: str) -> Selection:
    num_leaks = json.loads((folder / "leaks.json").read_text(encoding="utf-8"))
    train, held_out = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("train", "held_out"))
    return Selection(train, held_out, num_leaks, digest)


def _choose(stored: StoredConversations, folder: Path, max_rows: int | None, held_out_rows: int, seed: int) -> None:
    held_out = _draw(stored, held_out_rows, seed, "held_out", lambda keys: np.ones(len(keys.rows), dtype=bool))
    asked = _prompts(stored, held_out)

    def is_rest(keys: Keys) -> np.ndarray:
        rest = np.ones(len(keys.rows), dtype=bool)
        here = held_out[(held_out >= keys.start) & (held_out < keys.start + len(rest))]
        rest[here - keys.start] = False
        return rest

    def is_clean(keys: Keys) -> np.ndarray:
        return is_rest(keys) & ~np.isin(keys.prompts, asked)

    np.save(folder / "held_out.npy", held_out)
    num_leaks = len(stored) - len(held_out) - sum(int(is_clean(keys).sum()) for keys in stored.key_blocks())
    if max_rows is None:
        with GrowingArray(folder / "train.npy", np.int64) as train:
            for keys in stored.key_blocks():
                train.append(keys.start + np.flatnonzero(is_clean(keys)))
    else:
        wanted = max(0, max_rows - len(held_out))
        np.save(folder / "train.npy", _draw(stored, wanted, seed, "train", is_clean))
    files.write_json(folder / "leaks.json", num_leaks)


def _draw(
    stored: StoredConversations, count: int, seed: int, purpose: str, allowed: Callable[[Keys], np.ndarray]
) -> np.ndarray:
    """The positions of the `count` allowed rows of lowest rank, ascending."""
    positions, ranks = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    if not count:
        return positions
    for keys in stored.key_blocks():
        mask = allowed(keys)
        positions = np.concatenate([positions, keys.start + np.flatnonzero(mask)])
        ranks = np.concatenate([ranks, _ranks(seed, purpose, keys.rows[mask])])
        if len(positions) > count:
            lowest = np.lexsort((positions, ranks))[:count]
            positions, ranks = positions[lowest], ranks[lowest]
    return np.sort(positions)


def _ranks(seed: int, purpose: str, rows: np.ndarray) -> np.ndarray:
    """uint64 [rows]."""
    prefix = hashlib.blake2b(f"{seed}/{purpose}/".encode(), digest_size=8)
    digests = bytearray()
    for row in rows.tolist():
        one = prefix.copy()
        one.update(str(row).encode())
        digests += one.digest()
    return np.frombuffer(bytes(digests), dtype=">u8").astype(np.uint64)


def _prompts(stored: StoredConversations, positions: np.ndarray) -> np.ndarray:
    """S16 [found]: the digests of the prompts at `positions`."""
    found = [
        keys.prompts[positions[(positions >= keys.start) & (positions < keys.start + len(keys.rows))] - keys.start]
        for keys in stored.key_blocks()
    ]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=KEY)
