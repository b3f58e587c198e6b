"""A path as written in a recipe -> its files, in an order that does not depend on the machine."""

import glob
from dataclasses import dataclass
from pathlib import Path

from didact.datasets.archives import data_suffix
from didact.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".tsv", ".csv", ".parquet", ".arrow", ".feather")


@dataclass(frozen=True, slots=True)
class LocatedFile:
    """A file of a source."""

    path: Path
    name: str
    """Name relative to the folder or to the fixed part of the glob: the same wherever the data lies."""


def locate(source: str, path: str) -> list[LocatedFile]:
    """The files of a file, folder or glob, sorted by relative name.

    Args:
        source: the source's name, for errors.
        path: as written in the recipe; `~` is the home folder.

    Raises:
        DataError: nothing is there.
    """
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


def _fixed_part(pattern: Path) -> Path:
    first = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:first])
