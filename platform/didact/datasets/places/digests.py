"""What a file holds, as a digest: the first half of every address in the cache; and that it still held it when read.

Hashing reads the whole file, so what was found of a large one is remembered beside the cache for as long as the file's
size, times and inode stay as they were; a small one is hashed sooner than a memory of it is read. A file that changed a
moment ago is not remembered: a second change within the resolution of its times would go unseen.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from didact.datasets.places.remote_stream import RemoteFile, SourceFile, check_same
from didact.env import cache_dir
from didact.errors import DataError, FileGone
from didact.files import write_json

PART_BYTES = 1 << 22
"""Bytes of a file that make one part, at the fewest."""
MOST_PART_BYTES = 1 << 25
_PARTS = 64
_CHUNK_BYTES = 1 << 20
_REMEMBERED_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's content in short."""

    sha256: str
    size: int
    block_bytes: int
    newlines: tuple[int, ...]
    """Line feeds before each block of `block_bytes`: which line a row in the middle of the file stands on."""
    state: tuple[int, ...] = ()
    """Size, times and inode of the file; empty where a second change within their resolution would go unseen."""


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes that something is made of."""

    path: SourceFile
    file: str
    """The file as the user names it."""
    digest: FileDigest | None = None
    """None for a file that is read where it is: its `version` tells one content from another."""

    @classmethod
    def of(cls, path: SourceFile, file: str, block_bytes: int | None = None) -> "Content":
        """What a file holds now; the arguments are as above and for `digest_file`."""
        return cls(path, file, None if isinstance(path, RemoteFile) else digest_file(path, block_bytes))

    @property
    def identity(self) -> object:
        """Plain data that changes with the content: its digest, or what a server says of the file."""
        if isinstance(self.path, RemoteFile):
            return [self.path.url, *map(list, self.path.version), self.path.size]
        assert self.digest is not None
        return self.digest.sha256


def part_bytes_of(size: int) -> int:
    """How many bytes of a file of `size` make one part.

    Few enough for workers that share a file to end at about the same time, many enough for a large one not to become
    countless small files of the cache.
    """
    return min(MOST_PART_BYTES, max(PART_BYTES, 1 << (size // _PARTS).bit_length()))


def digest_file(path: Path, block_bytes: int | None = None) -> FileDigest:
    """Digest a file, or recall its digest where the file has not been touched since.

    Args:
        path: the file.
        block_bytes: after how many bytes line feeds are counted each time; None for the size of its parts.
    """
    state = _state(path)
    block_bytes = block_bytes or part_bytes_of(state[0])
    if state[0] < _REMEMBERED_BYTES:
        return _read(path, block_bytes, state)
    memo = cache_dir() / "digests" / f"{_name(path, block_bytes, state)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged on this disk
        known = json.loads(memo.read_text(encoding="utf-8"))
        if tuple(known["state"]) == state:
            return FileDigest(**{**known, "newlines": tuple(known["newlines"]), "state": state})
    digest = _read(path, block_bytes, state)
    if digest.state:
        write_json(memo, asdict(digest))
    return digest


@contextlib.contextmanager
def unchanged(contents: Iterable[Content]) -> Iterator[None]:
    """Refuse what was read inside where a file was changed meanwhile, even if its bytes are those of before again.

    Raises:
        DataError: a file is not what it was when its digest was taken, or was touched while it was read.
    """
    before = [(content, _state_if_there(content.path)) for content in contents]
    try:
        yield
    except GeneratorExit:
        raise
    except Exception:
        # Half of one content and half of another breaks in many ways, of which this is the cause.
        for content, state in before:
            if isinstance(content.path, Path):
                _check(content, content.path, state)
        raise
    for content, state in before:
        if isinstance(content.path, Path):
            _check(content, content.path, state)
        else:
            check_same(content.path)


def _check(content: Content, path: Path, before: tuple[int, ...]) -> None:
    now, known = _state_if_there(path), content.digest
    assert known is not None
    if now and now == before and (now == known.state or digest_file(path, known.block_bytes).sha256 == known.sha256):
        return
    advice = "what was read of it is thrown away. Start again to use what it holds now, and let nothing write into it"
    if not now:
        raise FileGone(f"{content.file} is gone while it was being read; {advice} meanwhile")
    raise DataError(f"{content.file} has changed while it was being read; {advice} meanwhile")


def _name(path: Path, block_bytes: int, state: tuple[int, ...]) -> str:
    # Nodes that share the cache, but see a file under different inodes, each have a memory of their own.
    return hashlib.sha256(os.fsencode(path.absolute()) + f":{block_bytes}:{state[-1]}".encode()).hexdigest()


def _state(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _state_if_there(path: SourceFile) -> tuple[int, ...]:
    try:
        return _state(path) if isinstance(path, Path) else ()
    except OSError:
        return ()


def _read(path: Path, block_bytes: int, state: tuple[int, ...]) -> FileDigest:
    settled = time.time_ns() - state[2] > _SETTLED_NS
    digest, size, lines = hashlib.sha256(), 0, 0
    newlines: list[int] = []
    with path.open("rb") as stream:
        while True:
            newlines.append(lines)
            left = block_bytes
            while left and (piece := stream.read(min(left, _CHUNK_BYTES))):
                digest.update(piece)
                lines += piece.count(b"\n")
                left -= len(piece)
            size += block_bytes - left
            if left:
                break
    state = state if settled and _state(path) == state else ()
    return FileDigest(digest.hexdigest(), size, block_bytes, tuple(newlines), state)
