"""Files that are never half-written, and digests of them.

Everything is written beside its final place, flushed to disk, then renamed: a reader sees the old or the new, never
a part of it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically, making its folder."""
    _write(path, [content])


def write_text(path: Path, text: str) -> None:
    """Write a whole text file atomically (UTF-8), making its folder. Half a character is written as JSON escapes it."""
    _write(path, [text.encode("utf-8", "backslashreplace")])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write pieces of text one after the other as one file, atomically; they need not fit into memory."""
    _write(path, (line.encode("utf-8") for line in lines))


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = scratch_for(path)
    try:
        with partial.open("wb") as stream:
            stream.writelines(pieces)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # what a full disk cut off
    sync_folder(path.parent)


def check_output(path: Path) -> None:
    """Nothing, where a file can be written; asked before the work whose result it will hold. Makes its folder.

    Raises:
        OSError: it cannot, as writing it would fail.
    """
    if path.is_dir():
        raise _refused(errno.EISDIR, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except FileExistsError:
        raise _refused(errno.ENOTDIR, path) from None
    except OSError as error:
        raise _refused(error.errno or errno.EIO, path) from None


def _refused(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def write_json(path: Path, value: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path, check: Callable[[Path], object] | None = None, *, replace: bool = True) -> Iterator[Path]:
    """Yield a scratch folder that becomes `path` when the block ends well, and vanishes when it raises.

    Scratch folders of killed processes stay, see `scratch_for`; `clear_scratch` removes them.

    Args:
        path: the folder.
        check: opens what the block wrote, and raises where it is not what readers of `path` expect.
        replace: whether an existing `path` is deleted; else it is left as it is.

    Raises:
        FileExistsError: `path` exists when the block ends, and is not to be replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_for(path)
    scratch.mkdir()
    try:
        yield scratch
        if check is not None:
            check(scratch)
        for file in scratch.rglob("*"):
            if file.is_file():
                share_file(file, scratch)
                sync_file(file)
        if os.path.lexists(path):
            if not replace:
                raise FileExistsError(f"{path} came into being meanwhile")
            shutil.rmtree(path)
        scratch.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def scratch_for(path: Path) -> Path:
    """A name beside `path`, `.NAME.<hex>.tmp`, that no other writer has.

    Several threads of a process write the same file, and several nodes do so in shared storage, where process ids are
    not names of one's own.
    """
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def clear_scratch(folder: Path) -> None:
    """Remove what killed writers left in `folder`. Only call while no other writer is at work there."""
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def share_file(path: Path, folder: Path) -> None:
    """Give a file the permissions of any file made here; safetensors writes files that nobody else may read.

    Args:
        path: the file.
        folder: one that was just made, whose permissions tell the user's mask.
    """
    mode = folder.stat().st_mode & 0o666
    if path.stat().st_mode & 0o666 != mode:
        path.chmod(path.stat().st_mode & 0o111 | mode)


def sync_file(path: Path) -> None:
    """Flush a file's bytes to disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hex digest of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def fingerprint(value: Any) -> str:
    """Hex digest of plain data, independent of the order of keys."""
    return sha256_text(json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":")))


def manifest(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Size and sha256 of the named files, as stored beside checkpoints and adapters."""
    return {
        name: {"size": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in sorted(names)
    }


def manifest_problems(folder: Path, entries: dict[str, dict[str, Any]]) -> list[str]:
    """What differs between a manifest's entries and the files in `folder`; empty when all is as written."""
    problems = []
    for name, entry in entries.items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != entry["size"]:
            problems.append(f"{name} has {file.stat().st_size} bytes, expected {entry['size']}")
        elif sha256_file(file) != entry["sha256"]:
            problems.append(f"{name} does not match its sha256")
    return problems


def append_jsonl(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line in a single write; a line that a kill left unfinished is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"
    with path.open("ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                line = b"\n" + line
        stream.write(line)


def cut_to_lines(path: Path) -> None:
    """Cut off a last line without its end, which a kill left."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, each with its number, counted from 1."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a JSON-lines file that we wrote; a last line cut off by a kill is passed over."""
    yield from follow_jsonl(path, 0)[0]


def members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook` of `json`, which keeps the last of members of one name.

    Raises:
        ValueError: a name stands twice; says which.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"its key {name!r} stands twice")
        found[name] = value
    return found


def follow_jsonl(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Complete records after byte `offset`, and the offset to go on from: reads a growing file piece by piece."""
    if not path.exists():
        return [], offset
    with path.open("rb") as stream:
        stream.seek(offset)
        whole, newline, _ = stream.read().rpartition(b"\n")
    records = []
    for line in whole.split(b"\n") if newline else []:
        with contextlib.suppress(ValueError):  # a line that a kill left unfinished
            records.append(json.loads(line))
    return records, offset + len(whole) + len(newline)
