"""`card:NAME` -> its files on this machine or its table on the hub, and how their rows are written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.datasets.catalog.card import PREFIX, Card, find_card, load_cards
from didact.datasets.catalog.card_files import card_files
from didact.datasets.catalog.groups import GROUPS
from didact.datasets.forms.field_mapping import FieldMapping
from didact.datasets.places.hub import PREFIX as PREFIX_OF_HUB
from didact.datasets.places.hub import commit_of
from didact.datasets.places.locate import LocatedFile, locate
from didact.datasets.places.remote import is_remote
from didact.datasets.rows.options import RowOptions, row_options
from didact.errors import DataError
from didact.spec import SourceSpec
from didact.spec.data import Format

ROOT_OPTION = "root"
FILES_OPTION = "files"
_OWN_OPTIONS = (ROOT_OPTION, FILES_OPTION)


@dataclass(frozen=True, slots=True)
class CardPlace:
    """Where the rows of a card are read from."""

    files: tuple[LocatedFile, ...]
    """Files on this machine; none for a table of the hub."""
    hub_path: str | None
    """`hf:OWNER/NAME` for a table of the hub."""
    format: Format
    """Form of the rows, or `auto`."""
    given: dict[str, Any]
    """Options as they are written: the card's, and the recipe's in their place."""
    options: RowOptions
    """The same, checked."""
    mapping: FieldMapping | None
    """Step before the form is read."""
    container_of_card: bool = False
    """Whether `options.container` is what the card expects, which a file as it is goes before."""

    @property
    def written(self) -> dict[str, Any]:
        """How the rows are written, as plain data for a fingerprint."""
        mapping = (self.mapping or FieldMapping()).model_dump(mode="json")
        return {"format": self.format, "options": self.given, "mapping": mapping}


def card_of(source: SourceSpec) -> Card | None:
    """The card that a source names, or None for another kind of source.

    Raises:
        DataError: no card has that name, or it is the name of a group.
    """
    return named_card(source) if source.path.startswith(PREFIX) else None


def named_card(source: SourceSpec) -> Card:
    """The card of a source `card:NAME`.

    Raises:
        DataError: as `card_of`.
    """
    name = source.path.removeprefix(PREFIX)
    cards = load_cards()
    if name in GROUPS and all(card.name != name for card in cards):
        raise DataError(
            f"source {source.name!r}: {name!r} is a group, not a dataset; give each of its datasets a source of its "
            f"own: {', '.join(PREFIX + member for member in GROUPS[name])}"
        )
    return find_card(name, cards)


def resolve_card(source: SourceSpec, card: Card) -> CardPlace:
    """Find a card's rows: under `options.root`, at the path of a user's card, or on the hub.

    Args:
        source: one that names the card; `options.files` narrows the card's files. Files of the hub are downloaded on
            first use.
        card: the card.

    Raises:
        DataError: a format beside the card's, an unknown option, nothing at the root, or nothing to download.
    """
    _check(source, card)
    rows, root = card.rows, source.options.get(ROOT_OPTION)
    at_hub = root is None and card.source.path is None
    given = {name: value for name, value in source.options.items() if name not in _OWN_OPTIONS}
    form, mapping = rows.format, rows.mapping or None
    if at_hub and card.source.converted:
        form, mapping = "alpaca", None
    else:
        given = {**rows.options, **given}
    # Before the hub is asked: a misspelt option must not cost a download.
    options = row_options(source.model_copy(update={"options": given}), passed_on=_OWN_OPTIONS)
    files, hub_path = _files(source, card, root)
    of_card = options.container is not None and "container" not in source.options
    return CardPlace(files, hub_path, form, given, options, mapping, of_card)


def _files(source: SourceSpec, card: Card, root: Any) -> tuple[tuple[LocatedFile, ...], str | None]:
    """The files on this machine, or the table of the hub."""
    if root is not None:
        return _below(source, card, root), None
    if card.source.path is not None:
        _refuse_files(source, card.source.path)
        return tuple(locate(source.name, card.source.path, stream=source.stream)), None
    if card.source.hub is None:
        raise DataError(
            f"source {source.name!r}: {card.name} is on no hub; get its files from {card.source.home} and give their "
            f"folder as options.{ROOT_OPTION}"
        )
    if card.source.files or FILES_OPTION in source.options:
        return _download(source, card), None
    return (), f"{PREFIX_OF_HUB}{card.source.hub}"


def _check(source: SourceSpec, card: Card) -> None:
    if source.format != "auto":
        raise DataError(
            f"source {source.name!r}: the card {card.name} says how its rows are written; remove "
            f"format: {source.format}, or name the files by their path instead of the card"
        )


def _below(source: SourceSpec, card: Card, root: Any) -> tuple[LocatedFile, ...]:
    if not isinstance(root, str) or not root:
        raise DataError(f"source {source.name!r}: options.{ROOT_OPTION} is {root!r}, expected a folder or file")
    if is_remote(root) and (patterns := _patterns(source, card.rows.files)):
        found = [locate(source.name, f"{root.rstrip('/')}/{each}", stream=source.stream) for each in patterns]
        return tuple(file for files in found for file in files)
    place = Path(root).expanduser()
    if not place.is_dir():
        _refuse_files(source, root)
        return tuple(locate(source.name, root, stream=source.stream))
    patterns = _patterns(source, card.rows.files)
    return _in_folder(source, card, place, patterns) if patterns else tuple(locate(source.name, root))


def _refuse_files(source: SourceSpec, path: str) -> None:
    if FILES_OPTION in source.options:
        raise DataError(f"source {source.name!r}: options.{FILES_OPTION} chooses inside a folder, not in {path}")


def _patterns(source: SourceSpec, of_card: tuple[str, ...]) -> tuple[str, ...]:
    """The globs of a recipe, or else those of the card."""
    given = source.options.get(FILES_OPTION)
    globs = [given] if isinstance(given, str) else given
    if globs is None:
        return of_card
    if not isinstance(globs, list) or not globs or not all(isinstance(each, str) and each for each in globs):
        raise DataError(f"source {source.name!r}: options.{FILES_OPTION} is {given!r}, expected globs, such as zh/*")
    if any(each.startswith("/") or ".." in each.split("/") for each in globs):
        raise DataError(f"source {source.name!r}: options.{FILES_OPTION} = {given!r} leads out of the folder")
    return tuple(globs)


def _in_folder(source: SourceSpec, card: Card, root: Path, patterns: tuple[str, ...]) -> tuple[LocatedFile, ...]:
    return card_files(source.name, card, root, patterns, chosen_by_user=FILES_OPTION in source.options)


def _download(source: SourceSpec, card: Card) -> tuple[LocatedFile, ...]:
    from huggingface_hub import snapshot_download  # takes a second, and only cards of the hub need it

    hub = str(card.source.hub)
    patterns = _patterns(source, card.source.files)
    if source.stream:
        home = f"hf://datasets/{hub}@{commit_of(PREFIX_OF_HUB + hub, source.revision)}/"
        located = [locate(source.name, home + pattern, stream=True) for pattern in patterns]
        found = {str(file.path): file.path for files in located for file in files}
        return tuple(LocatedFile(found[url], url.removeprefix(home)) for url in sorted(found))
    try:
        folder = snapshot_download(hub, repo_type="dataset", revision=source.revision, allow_patterns=list(patterns))
    except (OSError, ValueError) as error:
        raise DataError(
            f"source {source.name!r}: {', '.join(patterns)} of the Hugging Face dataset {hub} cannot be had: "
            f"{error}; get the files of {card.name} from {card.source.home} and give their folder as "
            f"options.{ROOT_OPTION}"
        ) from error
    return _in_folder(source, card, Path(folder), patterns)
