"""`didact data add`: data of the user's own becomes a card, after its form was recognised and its rows were checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.datasets.catalog import GROUPS, PREFIX, Card, card_yaml, load_cards, user_card_dir
from didact.datasets.load import FirstRows, first_rows
from didact.datasets.places import hub
from didact.datasets.places.remote import is_remote
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.quarantine import check_share
from didact.datasets.rows.raw_row import LEFT_OUT
from didact.datasets.sources.opening import open_card
from didact.errors import DataError
from didact.files import write_text
from didact.spec import SourceSpec, validate

CHECKED_ROWS = 1000
MAX_BAD_ROWS_SHARE = 0.01
_WHOLE_BYTES = 1 << 26
"""Most bytes of files that are read to their end."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class AddedCard:
    """A card that was written."""

    card: Card
    file: Path
    checked: FirstRows
    """The rows that were read to check it."""


def add_card(
    place: str,
    name: str,
    *,
    title: str = "",
    good_for: str = "Data of your own.",
    languages: tuple[str, ...] = ("und",),
    tasks: tuple[str, ...] = ("general",),
    licence: str = "unknown",
    commercial: bool | None = None,
    fields: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> AddedCard:
    """Check the first 1,000 rows of a file, folder, glob, URL or hub data set, and write a card for it.

    Files of up to 64 MiB together are read to their end as well, so that a damaged one makes no card.

    Args:
        place: a path or URL, or a Hugging Face dataset as `OWNER/NAME` or `hf:OWNER/NAME`. A path that exists goes
            first.
        name: name of the card.
        title: name in tables; empty for the name.
        good_for: when to choose it.
        languages: ISO 639-1 codes; `und` for undetermined.
        tasks: what its rows ask for.
        licence: SPDX id, text, or `unknown`.
        commercial: whether it may be used commercially; None where that is unknown.
        fields: role -> rule of `didact.datasets.forms.field_mapping`, where no form fits the data's own field names.
        options: what the reader must be told of the files (`didact.datasets.rows.options`).

    Raises:
        DataError: the name is taken, nothing is there, its form is unknown, or more than 1% of the rows are bad.
        SpecError: a name or value that a card does not take.
    """
    own = _free(name)
    local = _is_local(place)
    hub_id = None if local else place.removeprefix(hub.PREFIX)
    home = _absolute(place) if local else f"https://huggingface.co/datasets/{hub_id}"
    values = {
        "name": name,
        "title": title or name,
        "good_for": good_for,
        "languages": languages,
        "tasks": tasks,
        "generation": "unknown",
        "reasoning": False,
        "licence": licence,
        "commercial": commercial,
        "source": {"home": home, "hub": hub_id, "path": home if local else None},
        "rows": {"container": "As found", "options": dict(options or {}), "mapping": {"fields": dict(fields or {})}},
    }
    card = validate(Card, values, f"card {name}")
    checked = _check(card)
    card = _completed(card, checked)
    write_text(own, card_yaml(card))
    return AddedCard(card, own, checked)


def _free(name: str) -> Path:
    """The file of a card whose name nothing else bears."""
    own = user_card_dir() / f"{name}.yaml"
    if own.is_file():
        raise DataError(f"the name {name!r} is taken by {own}; remove that file to add anew, or choose another --name")
    if name in {*GROUPS, *(card.name for card in load_cards())}:
        raise DataError(f"the name {name!r} is taken by another dataset or group of the catalog; choose another --name")
    return own


def _is_local(place: str) -> bool:
    if place.startswith(hub.PREFIX):
        return False
    return not _HUB_ID.fullmatch(place) or Path(place).expanduser().exists()


def _absolute(place: str) -> str:
    return place if is_remote(place) else str(Path(place).expanduser().absolute())


def _check(card: Card) -> FirstRows:
    source = SourceSpec(name=card.name, path=PREFIX + card.name)
    opened = open_card(source, card)
    checked = first_rows(opened, CHECKED_ROWS)
    if opened.files and sum(part.size for part in opened.parts) <= _WHOLE_BYTES:
        for _ in opened.rows:  # a damaged file is refused, wherever the damage is
            pass
    num_read = len(checked.accepted) + len(checked.rejects)
    bad = [refused for refused in checked.rejects if refused.reason not in LEFT_OUT]
    check_share(card.name, num_read, len(bad), bad, MAX_BAD_ROWS_SHARE, None)
    if not checked.accepted:
        raise DataError(f"{card.source.home} holds no row that can be used")
    return checked


def _completed(card: Card, checked: FirstRows) -> Card:
    num_read = len(checked.accepted) + len(checked.rejects)
    options = card.rows.options
    if checked.noted.changed:  # what was done with these turns is to be seen on the card, and may be changed there
        options = {**options, "turns": RowOptions.model_validate(options).turns.model_dump()}
    form = checked.forms[0] if len(checked.forms) == 1 else "auto"
    rows = card.rows.model_copy(update={"format": form, "options": options})
    num_rows = len(checked.accepted) if num_read < CHECKED_ROWS else None
    return card.model_copy(update={"rows": rows, "num_rows": num_rows})
