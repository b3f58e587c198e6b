"""The files of a card in a folder as people have them: under another ending, in two endings at once, or other parts."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from didact.datasets.catalog.card import Card
from didact.datasets.places.archives import COMPRESSIONS, data_suffix
from didact.datasets.places.locate import SUFFIXES, LocatedFile
from didact.errors import DataError
from didact.logs import get_logger

_JSON = (".jsonl", ".json", ".ndjson")
_SHOWN = 8

_log = get_logger(__name__)


def card_files(
    source: str, card: Card, root: Path, patterns: Sequence[str], *, chosen_by_user: bool
) -> tuple[LocatedFile, ...]:
    """The files of a folder that hold a card's rows, by name; says in one line what of their folders is not read.

    A file that the card expects as `.json` may be there as `.jsonl`, compressed or not, and the other way round. Of two
    that differ in their ending alone one is read, since they are the same rows twice.

    Args:
        source: the source's name.
        card: the card.
        root: the folder.
        patterns: globs below it.
        chosen_by_user: whether the patterns are the recipe's `options.files`, which are taken as they are.

    Raises:
        DataError: none is there; says which files are, what was expected, and what to set.
    """
    found = _matching(root, patterns)
    if not found and not chosen_by_user:
        found = _matching(root, [other for pattern in patterns for other in _other_endings(pattern)])
    if not found:
        raise _nothing(source, card, root, patterns)
    read = found if chosen_by_user else _once(found)
    beside = {file for folder in {file.parent for file in read} for file in folder.iterdir() if _is_data(file)}
    if aside := beside - set(read):
        _log.info("source %s: %s is read from %s; not read as rows: %s", source, card.name, *map(_named, (read, aside)))
    located = [LocatedFile(file, file.relative_to(root).as_posix()) for file in read]
    return tuple(sorted(located, key=lambda file: file.name))


def _matching(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Files in the order of the patterns, then of their names."""
    return list(dict.fromkeys(file for each in patterns for file in sorted(root.glob(each)) if file.is_file()))


def _other_endings(pattern: str) -> list[str]:
    bare = next((pattern.removesuffix(end) for end in COMPRESSIONS if pattern.endswith(end)), pattern)
    ending = next((end for end in _JSON if bare.endswith(end)), None)
    if ending is None:
        return []
    return [bare.removesuffix(ending) + other + packed for other in _JSON for packed in ("", *COMPRESSIONS)]


def _once(found: Sequence[Path]) -> list[Path]:
    """Of files of the same name and folder but for a JSON ending, the first."""
    kept: dict[Path, Path] = {}
    for file in found:
        suffix = data_suffix(file)
        bare = file.with_name(file.name[: file.name.lower().rindex(suffix)]) if suffix in _JSON else file
        kept.setdefault(bare, file)
    return list(kept.values())


def _is_data(file: Path) -> bool:
    return file.is_file() and data_suffix(file) in SUFFIXES and not file.name.startswith(".")


def _nothing(source: str, card: Card, root: Path, patterns: Sequence[str]) -> DataError:
    there = sorted(file.relative_to(root).as_posix() for file in root.rglob("*") if _is_data(file))
    expected = f"source {source!r}: {root} holds no file of {card.name}; expected {', '.join(patterns)}"
    if not there:
        return DataError(f"{expected}, found no data file at all; its files come from {card.source.home}")
    return DataError(
        f"{expected}, found {_listed(there)}. If those are to be read, set options.files, as in options: "
        f"{{root: {root}, files: {there[0]!r}}}; the files that were expected come from {card.source.home}"
    )


def _named(files: Iterable[Path]) -> str:
    return _listed(sorted(file.name for file in files))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
