"""What a file holds, as a digest: the first half of every address in the cache.

Hashing reads the whole file, so what was found of a large one is remembered beside the cache for as long as the file's
size, times and inode stay as they were; a small one is hashed sooner than a memory of it is read. A file that changed a
moment ago is not remembered: a second change within the resolution of its times would go unseen.
"""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from didact.env import cache_dir
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
        return _read(path, block_bytes)
    memo = cache_dir() / "digests" / f"{_name(path, block_bytes)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged on this disk
        known = json.loads(memo.read_text(encoding="utf-8"))
        if known.pop("state") == state:
            return FileDigest(**{**known, "newlines": tuple(known["newlines"])})
    settled = time.time_ns() - max(state[1:3]) > _SETTLED_NS
    digest = _read(path, block_bytes)
    if settled and _state(path) == state:
        write_json(memo, {"state": state, **asdict(digest)})
    return digest


def _name(path: Path, block_bytes: int) -> str:
    return hashlib.sha256(os.fsencode(path.absolute()) + f":{block_bytes}".encode()).hexdigest()


def _state(path: Path) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(path: Path, block_bytes: int) -> FileDigest:
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
                return FileDigest(digest.hexdigest(), size, block_bytes, tuple(newlines))
