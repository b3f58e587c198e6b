"""Cards chosen by conditions, as a list that shows itself as a table."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

from rich.markup import escape
from rich.table import Table
from typing_extensions import override

from didact.datasets.catalog.card import GENERATIONS, Card, filter_cards, find_card, load_cards
from didact.datasets.catalog.groups import group_cards
from didact.datasets.catalog.table import permission
from didact.display import Shown
from didact.errors import DataError

_MANY = "; those of other languages are among `multi`"


@dataclass(frozen=True, slots=True)
class Cards(Shown, Sequence[Card]):
    """Cards of the catalog, by position or by name."""

    cards: tuple[Card, ...]
    num_known: int
    """Cards in the whole catalog."""

    @overload
    def __getitem__(self, index: int | str) -> Card: ...
    @overload
    def __getitem__(self, index: slice) -> "Cards": ...
    @override
    def __getitem__(self, index: int | str | slice) -> "Card | Cards":
        if isinstance(index, slice):
            return Cards(self.cards[index], self.num_known)
        if isinstance(index, int):
            return self.cards[index]
        return next((card for card in self.cards if card.name == index), None) or find_card(index)

    @override
    def __len__(self) -> int:
        return len(self.cards)

    @override
    def __rich__(self) -> Table:
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("Name", no_wrap=True)
        table.add_column("Lang.", max_width=5)
        table.add_column("Tasks", max_width=20)
        table.add_column("Answers by", no_wrap=True)
        table.add_column("CoT", no_wrap=True)
        table.add_column("Rows", justify="right", no_wrap=True)
        table.add_column("Comm.", no_wrap=True)
        for card in self.cards:
            table.add_row(
                *(escape(card.name), " ".join(card.languages), " ".join(card.tasks), card.generation),
                *("yes" if card.reasoning else "", _short(card.num_rows)),
                "?" if card.commercial is None else permission(card.commercial),
            )
        return table


def find_cards(
    *,
    group: str | None = None,
    language: str | None = None,
    task: str | None = None,
    generation: str | None = None,
    reasoning: bool | None = None,
    commercial: bool | None = None,
    licence: str | None = None,
    max_rows: int | None = None,
    min_rows: int | None = None,
    **unknown: object,
) -> Cards:
    """The datasets of the catalog that fit every condition.

    Args:
        group: a named set of datasets, such as `chain-of-thought`.
        language: such as `en` or `zh`.
        task: such as `math`, `code`, `dialogue`, `table-qa`.
        generation: who wrote the answers: `human`, `self-instruct`, `mixed`, `collection`.
        reasoning: with or without rationales.
        commercial: known to allow, or to forbid, commercial use.
        licence: part of the licence's name.
        max_rows: largest size.
        min_rows: smallest size.
        **unknown: conditions that there are none of; refused.

    Raises:
        DataError: a condition that there is none of; a group, task, language or generation that no card has.
    """
    if unknown:
        conditions = [name for name in inspect.signature(find_cards).parameters if name != "unknown"]
        raise DataError(f"cards have no condition {', '.join(map(repr, unknown))}; there are {', '.join(conditions)}")
    known = load_cards()
    _check_word("generation", generation, GENERATIONS)
    _check_word("task", task, {each for card in known for each in card.tasks})
    _check_word("language", language, {each for card in known for each in card.languages}, _MANY)
    cards = filter_cards(
        known if group is None else group_cards(group, known),
        language=language,
        task=task,
        generation=generation,
        reasoning=reasoning,
        commercial=commercial,
        licence=licence,
        max_rows=max_rows,
        min_rows=min_rows,
    )
    return Cards(cards, len(known))


def _check_word(condition: str, word: str | None, known: Iterable[str], note: str = "") -> None:
    if word is not None and word not in known:
        raise DataError(f"{condition} {word!r} is no card's; known: {', '.join(sorted(known))}{note}")


def _short(num_rows: int | None) -> str:
    if num_rows is None:
        return "?"
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if num_rows >= size:
            return f"{num_rows / size:.{1 if num_rows < 100 * size else 0}f}{unit}"
    return str(num_rows)
