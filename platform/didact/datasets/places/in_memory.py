"""Rows that a program holds -> a file of the cache, so that they go the way of every file from there on.

    pandas, pyarrow, datasets.Dataset, polars, list of dicts -> keep_rows -> `memory:ADDRESS`, the path of a source

The file is JSON lines: any row can be written, also one that has not the types of the others, and reaches the
quarantine with its number; and its lines are read in parts. The address is the digest of the file, so that the same
rows are the same source, whichever process or library they come from.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from didact.cache import CacheEntry, PartRecord, shard_of
from didact.datasets.rows.raw_row import twins_among
from didact.env import cache_dir
from didact.errors import DataError
from didact.files import scratch_for, sync_file

PREFIX = "memory:"
_KIND = "tables"
_FILE = "rows.jsonl"
_BATCH_ROWS = 1_000
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


def keep_rows(rows: Any) -> str:
    """Write rows to the cache, unless they are there, and give the path that a source names them by.

    Args:
        rows: a pandas or pyarrow table, anything else that gives Arrow batches (polars, DuckDB), a `datasets.Dataset`,
            or a list of dicts.

    Raises:
        DataError: it is none of these, or holds no rows.
    """
    kind = _kind(rows)
    home = cache_dir() / _KIND
    home.mkdir(parents=True, exist_ok=True)
    scratch = scratch_for(home / _FILE)
    digest, count = hashlib.sha256(), 0
    try:
        with scratch.open("wb") as stream:
            for line in json_lines(rows):
                digest.update(line)
                stream.write(line)
                count += 1
        if not count:
            raise DataError(f"data.sources: the {kind} given as a source holds no rows")
        entry = CacheEntry(home / digest.hexdigest()[:32])
        entry.fill([_FILE], {"source": kind, "rows": count}, lambda _: _add(entry, scratch, count))
    finally:
        scratch.unlink(missing_ok=True)
    return PREFIX + entry.address


def json_lines(rows: Any) -> Iterator[bytes]:
    """Rows as `keep_rows` writes them, one JSON value and a line feed each.

    Args:
        rows: see `keep_rows`.

    Raises:
        DataError: see `keep_rows`.
    """
    return map(_line, _records(rows))


def is_kept(path: str) -> bool:
    """Whether a path names rows that `keep_rows` wrote."""
    return path.startswith(PREFIX)


def kept_file(source: str, path: str) -> Path:
    """The file of rows that were kept.

    Args:
        source: the source's name, for errors.
        path: `memory:ADDRESS`.

    Raises:
        DataError: this cache does not hold them.
    """
    entry = CacheEntry(cache_dir() / _KIND / path.removeprefix(PREFIX))
    if not path.removeprefix(PREFIX) or not entry.is_complete():
        raise DataError(
            f"source {source!r}: the rows of {path} came from a program's memory and are not in the cache "
            f"{cache_dir()}; give the table again from Python, or set DIDACT_CACHE to the cache that holds them"
        )
    entry.hold().close()
    return entry.folder / _FILE


def _add(entry: CacheEntry, scratch: Path, count: int) -> None:
    entry.folder.mkdir(parents=True, exist_ok=True)
    sync_file(scratch)
    file = scratch.replace(entry.folder / _FILE)
    entry.add(PartRecord(_FILE, (shard_of(file, rows=count),), {"accepted": count}))


def _library(rows: Any) -> str:
    return type(rows).__module__.partition(".")[0]


def _kind(rows: Any) -> str:
    """What rows are, in words."""
    return "list of dicts" if isinstance(rows, list | tuple) else f"{_library(rows)}.{type(rows).__name__}"


def _records(rows: Any) -> Iterable[Any]:
    """The rows as plain data."""
    library, kind = _library(rows), _kind(rows)
    if isinstance(rows, list | tuple):
        return rows
    if library == "pandas" and hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        return _pandas_records(rows)
    if library == "datasets" and hasattr(rows, "iter"):
        batches = rows.with_format("arrow").iter(_BATCH_ROWS)
        return (record for batch in batches for record in batch.to_pylist())
    if hasattr(rows, "__arrow_c_stream__"):
        return _arrow_records(rows)
    if isinstance(rows, Mapping) and rows and library == "datasets":
        raise DataError(
            f"data.sources: found a {kind} with the splits {', '.join(rows)}; give one, as table[{next(iter(rows))!r}]"
        )
    found = "a dict" if isinstance(rows, dict) else f"{type(rows).__name__}"
    raise DataError(
        f"data.sources: found {found}; expected a path, or rows as a pandas or pyarrow table, a datasets.Dataset or a "
        "list of dicts"
    )


def _pandas_records(frame: Any) -> Iterator[dict[str, Any]]:
    _check_names(frame.columns)
    for start in range(0, len(frame), _BATCH_ROWS):
        piece = frame.iloc[start : start + _BATCH_ROWS].astype(object)
        yield from piece.where(piece.notna(), None).to_dict("records")


def _arrow_records(table: Any) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    for batch in pa.RecordBatchReader.from_stream(table):
        _check_names(batch.schema.names)
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield from batch.slice(start, _BATCH_ROWS).to_pylist()


def _check_names(names: Iterable[object]) -> None:
    if twins := twins_among(names):
        raise DataError(f"data.sources: {twins}")


def _line(record: Any) -> bytes:
    """A row as JSON. What JSON has no word for becomes an object, which no form takes for text."""
    try:
        return orjson.dumps(record, default=_foreign, option=_OPTIONS)
    except TypeError:  # an integer beyond 64 bits, or half of a surrogate pair, which the reader refuses by its name
        return json.dumps(record, default=_foreign).encode("ascii") + b"\n"


def _foreign(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return {"type": type(value).__name__}
