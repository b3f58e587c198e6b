"""What lies in the cache, and taking away what nobody needs."""

import fcntl
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import Timeout

from didact.cache.entry import CacheEntry

KINDS = ("tables", "conversations", "keys", "tokens", "filters", "scores")


@dataclass(frozen=True, slots=True)
class CachedEntry:
    """One address of the cache, described."""

    entry: CacheEntry
    kind: str
    """One of `KINDS`."""
    source: str
    """Name of the source when it was prepared; empty while it is not complete."""
    rows: int
    """Accepted conversations, samples, or rows that a filter looked at."""
    tokens: int
    """0 for all but tokens."""
    size: int
    """Bytes on disk."""
    last_used: datetime
    complete: bool


def list_cache(root: Path) -> list[CachedEntry]:
    """All addresses below the cache's root, the one used last first."""
    folders = [(kind, folder) for kind in KINDS for folder in sorted((root / kind).glob("*")) if folder.is_dir()]
    return sorted(
        (_describe(kind, folder) for kind, folder in folders), key=lambda found: found.last_used, reverse=True
    )


def other_sizes(root: Path) -> dict[str, int]:
    """Whatever else lies below the cache's root, by first name: bytes, the largest first. Links are not followed."""
    sizes: dict[str, int] = {}
    for path in root.rglob("*"):
        first, *inner = path.relative_to(root).parts
        in_address = first in KINDS and len(inner) > 1 and (root / first / inner[0]).is_dir()
        if not in_address and (path.is_symlink() or path.is_file()):
            sizes[first] = sizes.get(first, 0) + path.lstat().st_size
    return dict(sorted(((name, size) for name, size in sizes.items() if size), key=lambda each: -each[1]))


def prune(found: CachedEntry) -> bool:
    """Remove an address; False where it is being filled or read, on any machine that shares the folder."""
    lock = found.entry.lock()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        with found.entry.used.open("a", encoding="utf-8") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Gone under its name at once, so that nobody opens what is half removed.
            doomed = found.entry.folder.with_name(f".{found.entry.address}.tmp")
            found.entry.folder.rename(doomed)
        shutil.rmtree(doomed)
    except BlockingIOError:
        return False
    finally:
        lock.release()
    return True


def is_older(found: CachedEntry, age: timedelta) -> bool:
    """Whether the last use is longer ago than `age`."""
    return datetime.now(UTC) - found.last_used > age


def _describe(kind: str, folder: Path) -> CachedEntry:
    entry = CacheEntry(folder)
    records = entry.manifest()
    paths = [path for path in folder.rglob("*") if path.is_file()]
    used = entry.used if entry.used.exists() else folder
    return CachedEntry(
        entry,
        kind,
        str(entry.facts().get("source", "")),
        sum(record.counts.get("accepted", record.counts.get("samples", 0)) for record in records or ()),
        sum(record.counts.get("tokens", 0) for record in records or ()),
        sum(path.stat().st_size for path in paths),
        datetime.fromtimestamp(used.stat().st_mtime, UTC),
        records is not None,
    )
