"""Files that lie elsewhere: `https://`, `s3://`, `gs://` and every other place that fsspec knows.

    find_remote(path) -> RemoteFile -> land(file): a whole, checked copy in the cache, made once however many ask
                                    -> file.open(): read where it is, never laid on disk

A file is told from an earlier one at the same address by what its server says of it: ETag, time of change, size. Copies
are kept side by side, so that nothing changes under a reader.
"""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import cast

from filelock import FileLock

from didact.datasets.places.archives import data_suffix
from didact.datasets.places.folders import few
from didact.datasets.places.remote_stream import RemoteFile, check_same, describe, filesystem, is_web, patiently
from didact.env import cache_dir
from didact.errors import DataError
from didact.files import (
    clear_scratch,
    fingerprint,
    manifest,
    manifest_problems,
    new_folder,
    sha256_file,
    sha256_text,
    sync_folder,
    write_json,
)
from didact.logs import get_logger

_URL = re.compile(r"[a-z][a-z0-9+.-]+://.+")
_RECORD = ".landed.json"
_UNMARKED = "unmarked"
_log = get_logger(__name__)


def is_remote(path: str) -> bool:
    """Whether a path as written in a recipe is a URL."""
    return _URL.fullmatch(path) is not None


def find_remote(source: str, url: str, suffixes: Sequence[str]) -> list[tuple[str, RemoteFile]]:
    """The files of a URL, of a glob, or of a folder, with their names relative to its fixed part.

    Args:
        source: the source's name, for errors.
        url: as written in the recipe. In web addresses `?` begins a query and is no wildcard.
        suffixes: endings of the files that are taken from a folder.

    Raises:
        DataError: nothing is there, or the server cannot be asked.
    """
    magic = "*[" if is_web(url) else "*[?"
    files, path = filesystem(url)
    is_folder = url.endswith("/") or (not is_web(url) and patiently(url, lambda: files.isdir(path)))
    if is_folder:
        url = f"{url.rstrip('/')}/*"
    if not any(mark in url for mark in magic):
        file = describe(url)
        return [(file.name, file)]
    root = url[: min(url.index(mark) for mark in magic if mark in url)].rpartition("/")[0] + "/"
    pattern, fixed = filesystem(url)[1], filesystem(root)[1]
    listed = patiently(url, lambda: cast("list[str]", files.glob(pattern)))
    found = [name.removeprefix(fixed).lstrip("/") for name in listed]
    if is_folder:
        names = [name for name in found if not name.startswith(".")]
        found = [name for name in names if data_suffix(PurePosixPath(name)) in suffixes]
        if len(found) < len(names):
            aside = few(name for name in sorted(names) if name not in found)
            _log.warning("source %s: of %s left aside: %s", source, url, aside)
    if not found:
        raise DataError(f"source {source!r}: no file matches {url}; change its path in data.sources")
    return [(name, describe(root + name)) for name in sorted(found)]


def land(file: RemoteFile) -> Path:
    """A copy of the file in the cache. Whoever asks at the same time waits for the one copy.

    A server that marks its files neither by ETag nor by time is believed nothing: its file is fetched each time.

    Raises:
        DataError: the server does not give the whole file, or there is no room for it.
    """
    home = cache_dir() / "remote" / sha256_text(file.url)[:24]
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / ".lock"):
        clear_scratch(home)
        if not file.version:
            return _by_content(home, file)
        folder = home / fingerprint([file.version, file.size])[:24]
        if not _is_whole(folder, file):
            _fetch(folder, file)
        return folder / file.name


def _by_content(home: Path, file: RemoteFile) -> Path:
    fetched = home / _UNMARKED
    _fetch(fetched, file)
    folder = home / sha256_file(fetched / file.name)[:24]
    if _is_whole(folder, file):
        shutil.rmtree(fetched)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        fetched.rename(folder)
        sync_folder(home)
    return folder / file.name


def _is_whole(folder: Path, file: RemoteFile) -> bool:
    if not folder.is_dir():
        return False
    try:
        files = json.loads((folder / _RECORD).read_text(encoding="utf-8"))["files"]
        problems = manifest_problems(folder, files) if file.name in files else [f"{file.name} is not in {_RECORD}"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        problems = [f"{_RECORD} cannot be read: {error}"]
    if problems:
        _log.warning("the copy of %s is damaged and is fetched again: %s", file.url, "; ".join(problems))
    return not problems


def _fetch(folder: Path, file: RemoteFile) -> None:
    size = "of unknown size" if file.size is None else f"{file.size:,} bytes"
    _log.info("fetching %s (%s) into %s", file.url, size, folder)
    try:
        with new_folder(folder) as scratch:
            with file.open() as stream, (scratch / file.name).open("xb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
            check_same(file)
            record = {"url": file.url, "version": file.version, "files": manifest(scratch, [file.name])}
            write_json(scratch / _RECORD, record)
    except OSError as error:
        raise DataError(
            f"{file.url} ({size}) cannot be laid in {folder}: {error}; make room, set DIDACT_CACHE to another disk, or "
            "read the source with stream: true"
        ) from error
