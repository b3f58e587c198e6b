"""A path as written in a recipe -> its files, in an order that does not depend on the machine."""

import glob
from dataclasses import dataclass
from pathlib import Path

from didact.datasets.places.archives import data_suffix
from didact.datasets.places.in_memory import is_kept, kept_file
from didact.datasets.places.remote import find_remote, is_remote, land
from didact.datasets.places.remote_stream import RemoteFile, SourceFile
from didact.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".tsv", ".csv", ".parquet", ".arrow", ".feather")


@dataclass(frozen=True, slots=True)
class LocatedFile:
    """A file of a source."""

    path: SourceFile
    """On this machine; or elsewhere, where the source is to be streamed."""
    name: str
    """Name relative to the folder or to the fixed part of the glob: the same wherever the data lies."""
    url: str | None = None
    """What it was copied from: a URL, or `memory:ADDRESS`."""


def locate(source: str, path: str, *, stream: bool = False) -> list[LocatedFile]:
    """The files of a file, folder, glob or URL, sorted by relative name. Files elsewhere are copied into the cache.

    Args:
        source: the source's name, for errors.
        path: as written in the recipe; `~` is the home folder.
        stream: leave files of a URL where they are.

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
        found, root = [file for file in place.iterdir() if data_suffix(file) in SUFFIXES], place
        found = [file for file in found if not file.name.startswith(".")]
        missing = f"the folder {path} holds no file ending in {', '.join(SUFFIXES)}"
    elif glob.has_magic(path):
        found, root = [Path(name) for name in glob.glob(str(place), recursive=True)], _fixed_part(place)
        missing = f"no file matches {path}"
    else:
        found, root = [], place
        missing = f"there is no file or folder {path}"
    files = [LocatedFile(file, file.relative_to(root).as_posix()) for file in found if file.is_file()]
    if not files:
        raise DataError(f"source {source!r}: {missing}; change its path in data.sources")
    return sorted(files, key=lambda file: file.name)


def identity_of(file: RemoteFile) -> list[object]:
    """Plain data that changes with the content of a file elsewhere: what its server says of it."""
    return [file.url, *map(list, file.version), file.size]


def _unmoved(file: RemoteFile) -> RemoteFile:
    if not file.version:
        raise DataError(
            f"{file.url}: its server gives neither an ETag nor a time of change, so nobody could tell that it changed "
            "while it is streamed; set stream: false"
        )
    return file


def _fixed_part(pattern: Path) -> Path:
    first = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:first])
