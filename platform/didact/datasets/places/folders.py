"""The files of a folder or a glob on this machine: each real file once, however many links lead to it."""

import glob
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from didact.errors import DataError

_SHOWN = 5


@dataclass(slots=True)
class FoundFiles:
    """What a folder or a glob holds."""

    root: Path
    """The folder that names are relative to."""
    files: list[Path] = field(default_factory=list)
    """Each real file once, under its own name where that is here, else under that of the first link to it."""
    again: list[Path] = field(default_factory=list)
    """Other names of these files."""
    broken: list[Path] = field(default_factory=list)
    """Links that lead nowhere, or in a circle."""
    others: list[Path] = field(default_factory=list)
    """What lies in a folder and is not taken: other kinds of files, and folders."""

    def left_aside(self) -> str:
        """What is not read, in words; empty where all is."""
        groups = ((self.others, ""), (self.again, "links to files that are read: "), (self.broken, "broken links: "))
        return "; ".join(says + few(sorted(self._name(path) for path in paths)) for paths, says in groups if paths)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() + ("/" if path.is_dir() else "")


def few(names: Iterable[str]) -> str:
    """The first names, and how many more there are; bytes of a name that are no text are escaped."""
    known = list(names)
    more = f" and {len(known) - _SHOWN:,} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]).encode("utf-8", errors="backslashreplace").decode("utf-8") + more


def files_of_folder(folder: Path, suffixes: Sequence[str], suffix_of: Callable[[Path], str]) -> FoundFiles:
    """The files right in a folder that end as data does. Hidden ones are passed over.

    Args:
        folder: the folder.
        suffixes: endings that are taken.
        suffix_of: the ending of a path.
    """
    entries = [path for path in _entries(folder) if not path.name.startswith(".")]
    data = [path for path in entries if suffix_of(path) in suffixes and not path.is_dir()]
    found = _each_once(folder, data)
    taken = set(data)
    found.others = [path for path in entries if path not in taken]
    return found


def files_of_glob(pattern: Path) -> FoundFiles:
    """The files that a pattern matches; `**` goes into each real folder once, through links as well."""
    first = next(index for index, part in enumerate(pattern.parts) if glob.has_magic(part))
    root = Path(*pattern.parts[:first])
    return _each_once(root, _matches(root, pattern.parts[first:]))


def _matches(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if "**" not in parts:
        yield from (folder / name for name in glob.glob(str(Path(*parts)), root_dir=folder))
        return
    at = parts.index("**")
    for base in _matches(folder, parts[:at]) if at else (folder,):
        for each in _folders(base):
            yield from _matches(each, parts[at + 1 :] or ("*",))


def _folders(base: Path) -> Iterator[Path]:
    """A folder and all below it, each once. What has a place of its own here is not entered through a link."""
    own, linked = deque([base]), deque[Path]()
    seen = set[tuple[int, int]]()
    while own or linked:
        folder = own.popleft() if own else linked.popleft()
        if not folder.is_dir() or (key := _key(folder.stat())) in seen:
            continue
        seen.add(key)
        yield folder
        below = [path for path in _entries(folder) if path.is_dir() and not path.name.startswith(".")]
        own.extend(path for path in below if not path.is_symlink())
        linked.extend(path for path in below if path.is_symlink())


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _each_once(root: Path, paths: Iterable[Path]) -> FoundFiles:
    found, known = FoundFiles(root), set[tuple[int, int]]()
    real_root = os.path.realpath(root)

    def is_linked(path: Path) -> bool:
        return os.path.realpath(path) != os.path.join(real_root, path.relative_to(root))

    for path in sorted(dict.fromkeys(paths), key=lambda path: (is_linked(path), path)):
        try:
            state = path.stat()
        except OSError:
            found.broken.append(path)
            continue
        if stat.S_ISREG(state.st_mode):
            (found.again if _key(state) in known else found.files).append(path)
            known.add(_key(state))
    return found


def _key(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino
