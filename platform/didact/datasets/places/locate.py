"""A path as written in a recipe -> its files, in an order that does not depend on the machine."""

import glob
from dataclasses import dataclass
from pathlib import Path

from didact.datasets.places.archives import data_suffix
from didact.datasets.places.folders import FoundFiles, files_of_folder, files_of_glob
from didact.datasets.places.in_memory import is_kept, kept_file
from didact.datasets.places.remote import find_remote, is_remote, land
from didact.datasets.places.remote_stream import RemoteFile, SourceFile
from didact.errors import DataError
from didact.logs import get_logger

SUFFIXES = (".json", ".jsonl", ".ndjson", ".tsv", ".csv", ".parquet", ".arrow", ".feather")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LocatedFile:
    """A file of a source."""

    path: SourceFile
    """On this machine; or elsewhere, where the source is to be streamed."""
    name: str
    """Name relative to the folder or to the fixed part of the glob: the same wherever the data lies."""
    url: str | None = None
    """What it was copied from: a URL, or `memory:ADDRESS`."""


def locate(source: str, path: str, *, stream: bool = False, where: str = "data.sources") -> list[LocatedFile]:
    """The files of a file, folder, glob or URL, sorted by relative name, each real file once.

    Files elsewhere are copied into the cache. What is left aside is said in one line.

    Args:
        source: the source's name, for errors.
        path: as written in the recipe; `~` is the home folder.
        stream: leave files of a URL where they are.
        where: what names the path, for errors.

    Raises:
        DataError: nothing is there, or it cannot be had.
    """
    if is_remote(path):
        found_there = find_remote(source, path, SUFFIXES)
        if stream:
            return [LocatedFile(_unmoved(file), name) for name, file in found_there]
        return [LocatedFile(land(file), name, file.url) for name, file in found_there]
    if is_kept(path):
        return [LocatedFile(kept_file(source, path), "rows.jsonl", path)]
    place = Path(path).expanduser()
    if place.is_file():
        return [LocatedFile(place, place.name)]
    if place.is_dir():
        found = files_of_folder(place, SUFFIXES, data_suffix)
        missing = f"the folder {path} holds no file ending in {', '.join(SUFFIXES)}"
    elif glob.has_magic(path):
        found = files_of_glob(place)
        missing = f"no file matches {path}"
    else:
        found = FoundFiles(place.parent, broken=[place] if place.is_symlink() else [])
        missing = f"there is no file or folder {path}"
    aside = found.left_aside()
    if not found.files:
        raise DataError(
            f"source {source!r}: {missing}{f' (left aside: {aside})' if aside else ''}; change its path in {where}"
        )
    if aside:
        _log.warning("source %s: of %s left aside: %s", source, path, aside)
    files = [LocatedFile(file, file.relative_to(found.root).as_posix()) for file in found.files]
    return sorted(files, key=lambda file: file.name)


def _unmoved(file: RemoteFile) -> RemoteFile:
    if not file.version:
        raise DataError(
            f"{file.url}: its server gives neither an ETag nor a time of change, so nobody could tell that it changed "
            "while it is streamed; set stream: false"
        )
    return file
