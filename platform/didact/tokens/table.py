"""`TokenTable`: the samples of one source, memory-mapped from a cache folder."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from didact.errors import DataError
from didact.tokens.types import Sample

STATS_FILE = "stats.json"
ARRAYS: dict[str, type[np.generic]] = {"ids": np.int32, "mask": np.bool_, "offsets": np.int64, "rows": np.int64}
"""File stem -> element type. `offsets` has one entry more than there are samples."""


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What tokenization made of a source."""

    samples: int
    tokens: int
    supervised: int
    """Tokens that are learned, over all samples."""
    truncated: int
    """Samples whose tail was cut."""
    last_turn_only: int
    """Samples of several answers of which only the last could be found in the template's text."""
    rejected: dict[str, int]
    """Reason -> conversations left out."""
    longest: int
    """Tokens of the longest sample; 0 without samples."""

    @property
    def mean_tokens(self) -> float:
        """Tokens per sample; 0 without samples."""
        return self.tokens / self.samples if self.samples else 0.0


@dataclass(frozen=True)
class TokenTable:
    """Samples of one source in the source's order, read from disk as they are asked for."""

    name: str
    """The source."""
    fingerprint: str
    """Key of the cache: same fingerprint, same samples in the same order."""
    stats: TokenStats
    ids: np.ndarray
    """int32 [tokens], memory-mapped."""
    mask: np.ndarray
    """bool [tokens], memory-mapped."""
    offsets: np.ndarray
    """int64 [samples + 1]: sample i is `ids[offsets[i]:offsets[i + 1]]`."""
    rows: np.ndarray
    """int64 [samples]: raw row of each sample in its source."""
    lengths: np.ndarray
    """int64 [samples]: tokens."""
    supervised: np.ndarray
    """int64 [samples]: learned tokens that have a predecessor, as `pack` and `pad` count them."""

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` as arrays of its own.

        Raises:
            IndexError: no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples; found index {index}")
        part = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Sample(np.array(self.ids[part]), np.array(self.mask[part]))

    def length(self, index: int) -> int:
        """Tokens of sample `index`."""
        return int(self.lengths[index])

    def num_supervised(self, index: int) -> int:
        """Targets of sample `index`."""
        return int(self.supervised[index])

    def row(self, index: int) -> int:
        """Raw row of sample `index` in its source."""
        return int(self.rows[index])


def open_table(folder: Path, name: str) -> TokenTable:
    """Open a cache folder; its name is the fingerprint.

    Raises:
        DataError: a file is missing or unreadable, or a size differs from `stats.json`.
    """
    try:
        stats = TokenStats(**json.loads((folder / STATS_FILE).read_text(encoding="utf-8")))
        arrays = {stem: np.load(folder / f"{stem}.npy", mmap_mode="r", allow_pickle=False) for stem in ARRAYS}
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise DataError(f"token cache {folder}: {error}") from error
    sizes = {"ids": stats.tokens, "mask": stats.tokens, "offsets": stats.samples + 1, "rows": stats.samples}
    for stem, array in arrays.items():
        if array.shape != (sizes[stem],) or array.dtype != ARRAYS[stem]:
            found = f"{array.dtype}{list(array.shape)}"
            raise DataError(f"token cache {folder}: {stem}.npy holds {found}, {STATS_FILE} says [{sizes[stem]}]")
    offsets = np.array(arrays["offsets"])
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != stats.tokens or (lengths <= 0).any():
        raise DataError(f"token cache {folder}: offsets.npy does not run from 0 to {stats.tokens} tokens in steps")
    supervised = _supervised(arrays["mask"], offsets)
    if int(supervised.sum()) != stats.supervised:
        raise DataError(f"token cache {folder}: mask.npy has {supervised.sum()} targets, not {stats.supervised}")
    return TokenTable(
        name, folder.name, stats, arrays["ids"], arrays["mask"], offsets, arrays["rows"], lengths, supervised
    )


def _supervised(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    starts = offsets[:-1]
    if not len(starts):
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(mask, starts, dtype=np.int64) - mask[starts]
