"""A few conversations of a card: real ones where its files are on this machine, else its made-up example."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.datasets.catalog import PREFIX, ROOT_OPTION, Card
from didact.datasets.load import FirstRows, first_rows
from didact.datasets.opening import open_card
from didact.datasets.types import Conversation
from didact.errors import DataError
from didact.spec import SourceSpec

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


def write_example(card: Card, folder: Path) -> None:
    """Write a card's example as files in the shape of the real ones."""
    encoding = str(card.rows.options.get("encoding", "utf-8"))
    for name, content in card.rows.example.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_text(content).encode(encoding))


def _read(card: Card, options: dict[str, Any]) -> FirstRows:
    source = SourceSpec(name=card.name, path=PREFIX + card.name, options=options)
    return first_rows(open_card(source, card), _LOOKED_AT)


def _text(content: str | dict[str, Any] | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) + "\n"
