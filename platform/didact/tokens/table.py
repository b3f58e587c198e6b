"""`TokenTable`: samples of one source, found by an index and read from memory-mapped shards.

    <token cache>/views/<key>/    which samples, as arrays: shard, shard_row, lengths, supervised, rows; and stats.json

Opening reads a few figures and maps the arrays, whatever the number of samples.
"""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from didact import files
from didact.cache.columns import GrowingArray
from didact.cache.entry import CacheEntry, Shard, shard_of
from didact.datasets.stored.view import ConversationView
from didact.errors import DataError
from didact.logs import get_logger
from didact.tokens.shards import OUTCOMES, TokenShard, token_shards
from didact.tokens.types import Sample

STATS_FILE = "stats.json"
ARRAYS: dict[str, type[np.generic]] = {
    "shard": np.int32,
    "shard_row": np.int32,
    "lengths": np.int32,
    "supervised": np.int32,
    "rows": np.int64,
}
"""File stem -> element type; each has one element a sample."""
_OPEN_SHARDS = 256
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenStats:
    """What tokenization made of a source."""

    samples: int
    tokens: int
    supervised: int
    """Tokens that are learned, over all samples."""
    truncated: int
    """Samples whose tail was cut."""
    left_out: int
    """Answers that no sample teaches although `loss_on` asks for them, in conversations that have others."""
    rejected: dict[str, int]
    """Reason -> conversations left out."""
    longest: int
    """Tokens of the longest sample; 0 without samples."""

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> "TokenStats":
        """What was written, by this version or by one that counted other things."""
        names = {each.name for each in fields(cls)}
        return cls(**{"left_out": 0, **{name: value[name] for name in value if name in names}})

    @property
    def mean_tokens(self) -> float:
        """Tokens per sample; 0 without samples."""
        return self.tokens / self.samples if self.samples else 0.0


@dataclass(frozen=True, slots=True)
class ViewAddress:
    """Where a table is: all that another process needs to open it."""

    tokens: CacheEntry
    """The shards."""
    key: str
    """Folder of the index in `views/`."""
    fingerprint: str
    """Same fingerprint, same samples in the same order, however they are spread over shards."""

    @property
    def folder(self) -> Path:
        """The index's folder."""
        return self.tokens.folder / "views" / self.key


@dataclass(frozen=True)
class TokenTable:
    """Samples of one source in the source's order, read from disk as they are asked for."""

    name: str
    """The source."""
    address: ViewAddress
    stats: TokenStats
    lengths: np.ndarray
    """int32 [samples]: tokens; memory-mapped."""
    supervised: np.ndarray
    """int32 [samples]: learned tokens that have a predecessor, as `pack` and `pad` count them; memory-mapped."""
    rows: np.ndarray
    """int64 [samples]: raw row of each sample in its source; memory-mapped."""
    shards: tuple[Shard, ...] = field(repr=False)
    shard: np.ndarray = field(repr=False)
    """int32 [samples]: which of `shards`; memory-mapped."""
    shard_row: np.ndarray = field(repr=False)
    """int32 [samples]: row in the shard; memory-mapped."""
    held: Any = field(repr=False)
    """Keeps the cache from being pruned."""

    def __post_init__(self) -> None:
        # As many files as a process may have open without thought; each is checked when it is first opened. A cycle
        # through this table would keep the cache held long after the last use.
        tokens = self.address.tokens
        opened = lru_cache(maxsize=_OPEN_SHARDS)(lambda shard: TokenShard.open(tokens.sound_shard(shard)))
        object.__setattr__(self, "_opened", opened)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens it again."""
        return open_table, (self.address, self.name)

    @property
    def fingerprint(self) -> str:
        """Same fingerprint, same samples in the same order."""
        return self.address.fingerprint

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index` as arrays of its own.

        Raises:
            IndexError: no such sample.
            DataError: its shard is not as it was written.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples; found index {index}")
        return self._opened(self.shards[self.shard[index]]).sample(int(self.shard_row[index]))  # type: ignore[attr-defined]

    def length(self, index: int) -> int:
        """Tokens of sample `index`."""
        return int(self.lengths[index])

    def num_supervised(self, index: int) -> int:
        """Targets of sample `index`."""
        return int(self.supervised[index])

    def row(self, index: int) -> int:
        """Raw row of sample `index` in its source."""
        return int(self.rows[index])


def view_table(tokens: CacheEntry, view: ConversationView, name: str) -> TokenTable:
    """The samples of some rows of a source, as a table; its index is written once.

    Args:
        tokens: the source's samples; must be complete.
        view: the rows.
        name: of the source.
    """
    shards = _shards(tokens)
    layout = files.fingerprint([[shard.name, shard.rows] for shard in shards])
    address = ViewAddress(
        tokens, files.fingerprint([view.digest, layout]), files.fingerprint([tokens.address, view.digest])
    )
    with suppress(DataError):
        return open_table(address, name)
    with tokens.lock():
        # Another thread or process may have written it meanwhile, and people read what it wrote.
        if address.folder.is_dir():
            try:
                return open_table(address, name)
            except DataError as error:
                _log.warning("%s; the index is made again", error)
        with files.new_folder(address.folder) as scratch:
            stats = _write_index(scratch, tokens, view)
            described = [asdict(shard_of(scratch / f"{stem}.npy", stats.samples)) for stem in ARRAYS]
            files.write_json(scratch / STATS_FILE, {"stats": asdict(stats), "files": described})
    return open_table(address, name)


def open_table(address: ViewAddress, name: str) -> TokenTable:
    """Open a table that has been made, here or in another process.

    Raises:
        DataError: a file is missing, or is not as it was written.
    """
    shards, index = _shards(address.tokens), CacheEntry(address.folder)
    try:
        value = json.loads((address.folder / STATS_FILE).read_text(encoding="utf-8"))
        stats = TokenStats.read(value["stats"])
        paths = [index.sound_shard(Shard(**{**entry, "batches": ()})) for entry in value["files"]]
        arrays = {path.stem: _map(path) for path in paths}
        return TokenTable(name, address, stats, shards=shards, held=address.tokens.hold(), **arrays)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"token cache {address.folder}: {error}") from error


def _map(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _shards(tokens: CacheEntry) -> tuple[Shard, ...]:
    records = tokens.manifest()
    if records is None:
        raise DataError(f"{tokens.folder} holds no complete tokens")
    return tuple(shard for record in records for shard in token_shards(record))


def _write_index(folder: Path, tokens: CacheEntry, view: ConversationView) -> TokenStats:
    starts, first_rows = view.stored.first_positions, view.stored.first_rows
    outcomes, tally, longest, number = Counter[str](), Counter[str](), 0, 0
    with ExitStack() as stack:
        arrays = {
            stem: stack.enter_context(GrowingArray(folder / f"{stem}.npy", dtype)) for stem, dtype in ARRAYS.items()
        }
        for part, record in enumerate(tokens.manifest() or ()):
            wanted = view.marks(starts[part], starts[part + 1])
            for shard in token_shards(record):
                opened = TokenShard.open(tokens.sound_shard(shard))
                asked, outcome = wanted[opened.numbers("position")], opened.numbers("outcome")
                for code, count in enumerate(np.bincount(outcome[asked], minlength=len(OUTCOMES)).tolist()):
                    outcomes[OUTCOMES[code]] += count
                here = np.flatnonzero(asked & (outcome == 0))
                lengths, supervised = np.diff(opened.offsets)[here], opened.numbers("supervised")[here]
                arrays["shard"].append(np.full(len(here), number))
                arrays["shard_row"].append(here)
                arrays["lengths"].append(lengths)
                arrays["supervised"].append(supervised)
                arrays["rows"].append(opened.numbers("row")[here] + first_rows[part])
                tally.update(tokens=int(lengths.sum()), supervised=int(supervised.sum()))
                tally.update({count: int(opened.numbers(count)[here].sum()) for count in ("truncated", "left_out")})
                longest = max(longest, int(lengths.max(initial=0)))
                number += 1
    samples = outcomes.pop(OUTCOMES[0], 0)
    figures = {name: tally[name] for name in ("tokens", "supervised", "truncated", "left_out")}
    rejected = {reason: count for reason, count in sorted(outcomes.items()) if count}
    return TokenStats(samples=samples, longest=longest, rejected=rejected, **figures)
