"""A folder of the cache that is filled part by part, exactly once, and never serves what is half-written.

    <cache>/<kind>/<address>/           the address is a digest of everything that decides the content
        <part>-0000.*.arrow             shards, each written beside its place, flushed, renamed
        parts/<part>.json               written when all shards of a part are there: their sizes and digests, counts
        manifest.json                   written last: all parts in order; from then on the folder is served
        used                            touched by every opening, and held by every reader, so that pruning waits
    <cache>/<kind>/<address>.lock       held by the one process that fills the folder; others wait for it

A killed preparation leaves finished parts, which the next one keeps. Whoever prepares checks sizes and digests of all
shards, once a process, and makes again what does not match; whoever only opens checks a shard when it first reads it.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

from didact import files
from didact.errors import DataError
from didact.failpoints import read_failpoints
from didact.logs import get_logger

_log = get_logger(__name__)
_MANIFEST = "manifest.json"
_PARTS = "parts"
_USED = "used"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a part."""

    name: str
    size: int
    sha256: str
    rows: int
    """Rows it holds."""
    batches: tuple[int, ...] = ()
    """Rows of each record batch, where there are several."""


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What a finished part left."""

    key: str
    shards: tuple[Shard, ...]
    counts: dict[str, Any] = field(default_factory=dict)
    """Figures of the part, by name."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "PartRecord":
        """From plain data."""
        shards = tuple(Shard(**{**shard, "batches": tuple(shard["batches"])}) for shard in value["shards"])
        return cls(value["key"], shards, value["counts"])


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """One address of the cache. Small and picklable: tasks on other nodes write parts through it."""

    folder: Path

    @property
    def address(self) -> str:
        """Digest of everything that decides the content."""
        return self.folder.name

    @property
    def used(self) -> Path:
        """The file that readers hold; its time is that of the last use."""
        return self.folder / _USED

    def lock(self) -> FileLock:
        """Held by whoever fills the folder."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.with_name(f"{self.address}.lock"))

    def manifest(self) -> tuple[PartRecord, ...] | None:
        """All parts in order, or None where the folder is not complete."""
        return self._read_manifest()[0]

    def facts(self) -> dict[str, Any]:
        """What the folder was made of, in words; empty where it is not complete."""
        return self._read_manifest()[1]

    def is_sound(self, key: str) -> bool:
        """Whether a part is finished and its shards are as they were written."""
        record = self.record(key)
        return record is not None and not self._problems(record)

    def record(self, key: str) -> PartRecord | None:
        """What a part left, or None where it is not finished."""
        manifest = self.manifest()
        if manifest is not None:
            return next((record for record in manifest if record.key == key), None)
        path = self.folder / _PARTS / f"{key}.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return PartRecord.of(json.loads(path.read_text(encoding="utf-8")))
        return None

    def missing(self, keys: Sequence[str]) -> list[str]:
        """The parts that are still to be made; asked under the lock. Damaged ones are taken out of the manifest."""
        manifest = self.manifest()
        if manifest is not None:
            sound = [record for record in manifest if not self._problems(record, log=True)]
            if [record.key for record in sound] == list(keys):
                return []
            for record in sound:
                files.write_json(self.folder / _PARTS / f"{record.key}.json", asdict(record))
            (self.folder / _MANIFEST).unlink()
            _read_manifest.cache_clear()
        return [key for key in keys if not self.is_sound(key)]

    def add(self, record: PartRecord) -> None:
        """Declare a part finished; its shards must be in place."""
        if failpoints := read_failpoints(self.folder.parent):
            failpoints.strike("shards", 0, len(list((self.folder / _PARTS).glob("*.json"))))
        files.write_json(self.folder / _PARTS / f"{record.key}.json", asdict(record))

    def finish(self, keys: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Declare the folder complete, and remove what belongs to no part.

        Raises:
            DataError: a part has not arrived here: the writers do not share this folder.
        """
        records = [self.record(key) for key in keys]
        lost = [key for key, record in zip(keys, records, strict=True) if record is None]
        if lost:
            raise DataError(
                f"{len(lost)} of {len(keys)} prepared parts are not in {self.folder}: the cache (DIDACT_CACHE) must be "
                "a folder that all nodes share"
            )
        if failpoints := read_failpoints(self.folder.parent):
            failpoints.strike("manifest", 0, 0)
        value = {"facts": dict(facts), "parts": [asdict(record) for record in records if record]}
        files.write_json(self.folder / _MANIFEST, value)
        wanted = {shard.name for record in records if record for shard in record.shards} | {_MANIFEST, _USED}
        for path in self.folder.iterdir():
            if path.is_file() and path.name not in wanted:
                path.unlink()
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)

    def fill(self, keys: Sequence[str], facts: Mapping[str, Any], make: Callable[[list[str]], None]) -> None:
        """Make what is missing, once among all processes.

        Args:
            keys: all parts, in order.
            facts: what the folder is made of, for people.
            make: writes the parts it is told.
        """
        if self.is_complete(keys):
            return
        with self.lock():
            missing = self.missing(keys)
            if missing or self.manifest() is None:
                if missing:
                    make(missing)
                self.finish(keys, facts)

    def is_complete(self, keys: Sequence[str] | None = None) -> bool:
        """Whether the folder can be served: every shard is as it was written.

        Args:
            keys: the parts it should have; None for whatever it has.
        """
        manifest = self.manifest()
        if manifest is None or (keys is not None and [record.key for record in manifest] != list(keys)):
            return False
        return not any(self._problems(record, log=True) for record in manifest)

    def hold(self) -> TextIO:
        """Note a use of the folder, and keep it from being pruned while the file that is returned stays open."""
        stream = self.used.open("a", encoding="utf-8")
        fcntl.flock(stream, fcntl.LOCK_SH)
        os.utime(stream.fileno())
        return stream

    def _read_manifest(self) -> tuple[tuple[PartRecord, ...] | None, dict[str, Any]]:
        path = self.folder / _MANIFEST
        try:
            state = path.stat()
            return _read_manifest(path, state.st_mtime_ns, state.st_ino)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None, {}

    def _problems(self, record: PartRecord, *, log: bool = False) -> list[str]:
        problems = [problem for shard in record.shards if (problem := self.problem(shard))]
        if log and problems:
            _log.warning("%s: %s; it is made again", self.folder, "; ".join(problems[:3]))
        return problems

    def problem(self, shard: Shard) -> str | None:
        """What is wrong with a shard; its bytes are read once in a process, or again when it was touched."""
        path = self.folder / shard.name
        try:
            state = path.stat()
        except FileNotFoundError:
            return f"{shard.name} is missing"
        if state.st_size != shard.size:
            return f"{shard.name} has {state.st_size} bytes, expected {shard.size}"
        if _sha256(path, state.st_mtime_ns, state.st_ino) != shard.sha256:
            return f"{shard.name} does not match its sha256"
        return None

    def sound_shard(self, shard: Shard) -> Path:
        """A shard's file, after a check of its bytes.

        Raises:
            DataError: it is not as it was written.
        """
        problem = self.problem(shard)
        if problem is not None:
            raise DataError(f"{self.folder}: {problem}; prepare the data again, which makes only this part anew")
        return self.folder / shard.name


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path`; what is written there becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = files.scratch_for(path)
    try:
        yield partial
        files.sync_file(partial)
        partial.replace(path)
        files.sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def shard_of(path: Path, rows: int, batches: Sequence[int] = ()) -> Shard:
    """Describe a file that has just been written."""
    return Shard(path.name, path.stat().st_size, files.sha256_file(path), rows, tuple(batches))


@lru_cache(maxsize=64)
def _read_manifest(path: Path, _mtime_ns: int, _inode: int) -> tuple[tuple[PartRecord, ...], dict[str, Any]]:
    value = json.loads(path.read_text(encoding="utf-8"))
    return tuple(PartRecord.of(part) for part in value["parts"]), value["facts"]


@cache
def _sha256(path: Path, _mtime_ns: int, _inode: int) -> str:
    return files.sha256_file(path)
