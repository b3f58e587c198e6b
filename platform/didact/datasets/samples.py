"""A few conversations of a card: real ones where its files are on this machine, else its made-up example."""

import contextlib
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.datasets.catalog import PREFIX, ROOT_OPTION, Card
from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import to_conversation
from didact.datasets.load import FirstRows, first_rows
from didact.datasets.places.remote import is_remote
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.datasets.sources.opening import open_card
from didact.errors import DataError
from didact.spec import SourceSpec
from didact.spec.data import Form

_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Samples:
    """Conversations to look at."""

    conversations: tuple[Conversation, ...]
    made_up: bool
    """They are the card's example, because none of its files is on this machine."""


def card_samples(card: Card, root: Path | None = None, count: int = 3) -> Samples:
    """Conversations spread over the first 1,000 rows.

    Args:
        card: the card.
        root: folder or file that holds its raw files; None for the path of a user's card, else the example.
        count: how many at most.

    Raises:
        DataError: the files hold no row that can be used.
    """
    place = root or card.source.path
    if place is not None:
        rows = _read(card, {ROOT_OPTION: str(root)} if root else {})
        if not rows.accepted:
            raise DataError(f"{card.name}: no row at {place} can be used: {rows.rejects[0].summary}")
        step = max(1, len(rows.accepted) // count)
        return Samples(rows.accepted[::step][:count], made_up=False)
    if not card.rows.example:
        return Samples((), made_up=True)
    with tempfile.TemporaryDirectory(prefix="didact-card-") as folder:
        write_example(card, Path(folder))
        return Samples(_read(card, {ROOT_OPTION: folder}).accepted[:count], made_up=True)


@dataclass(frozen=True, slots=True)
class RowSample:
    """Rows taken at random from all of a source."""

    num_rows: int
    """Rows of the source, good and bad."""
    conversations: tuple[Conversation, ...]
    """The good ones of the rows that were taken."""
    num_refused: int
    """The bad ones of them."""


def random_rows(card: Card, root: Path | None = None, count: int = 200) -> RowSample | None:
    """Rows of a card's files, each as likely as any other, always the same ones; every row is passed over once.

    Args:
        card: the card.
        root: folder or file that holds its raw files; None for the path of a user's card.
        count: how many are taken.

    Returns:
        None where no file is on this machine.

    Raises:
        DataError: a file of unknown form.
    """
    if root is None and (card.source.path is None or is_remote(card.source.path)):
        return None
    opened = open_card(*_source(card, {ROOT_OPTION: str(root)} if root else {}))
    draw = random.Random(card.name)
    taken: list[tuple[Form, RawRow]] = []
    num_rows = 0
    for num_rows, row in enumerate(opened.rows, start=1):
        if len(taken) < count:
            taken.append(row)
        elif (place := draw.randrange(num_rows)) < count:
            taken[place] = row
    settings = RowSettings(opened.options, any_form=True)
    good = []
    for form, raw in taken:
        with contextlib.suppress(BadRow):
            good.append(to_conversation(form, raw, raw.line, settings))
    return RowSample(num_rows, tuple(good), len(taken) - len(good))


def write_example(card: Card, folder: Path) -> None:
    """Write a card's example as files in the shape of the real ones."""
    encoding = str(card.rows.options.get("encoding", "utf-8"))
    for name, content in card.rows.example.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_text(content).encode(encoding))


def _read(card: Card, options: dict[str, Any]) -> FirstRows:
    return first_rows(open_card(*_source(card, options)), _LOOKED_AT)


def _source(card: Card, options: dict[str, Any]) -> tuple[SourceSpec, Card]:
    return SourceSpec(name=card.name, path=PREFIX + card.name, options=options), card


def _text(content: str | dict[str, Any] | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) + "\n"
