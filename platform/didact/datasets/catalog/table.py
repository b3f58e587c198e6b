"""The catalog as a table: `python -m didact.datasets.catalog.table docs/catalog.md` brings a page up to date."""

import sys
from collections.abc import Iterable

from didact.datasets.catalog.card import Card, builtin_cards
from didact.datasets.forms.page import update_pages, with_part
from didact.datasets.forms.table_of_forms import CHAT_FORMS
from didact.datasets.rows.options import RowOptions

BEGIN = "<!-- cards: written by python -m didact.datasets.catalog.table docs/catalog.md -->"
END = "<!-- end of cards -->"
_HEADER = ("Name", "Languages", "Tasks", "Answers by", "Reasoning", "Rows", "Licence", "Commercial use")


def markdown_table(cards: Iterable[Card]) -> str:
    """One line a card, in Markdown."""
    lines = ["| " + " | ".join(_HEADER) + " |", "|" + " --- |" * len(_HEADER)]
    for card in cards:
        cells = (
            f"[`{card.name}`]({card.source.home})",
            ", ".join(card.languages),
            ", ".join(card.tasks),
            card.generation,
            "yes" if card.reasoning else "",
            f"{card.num_rows:,}" if card.num_rows else "unknown",
            card.licence.replace("|", "\\|"),
            permission(card.commercial),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def permission(commercial: bool | None) -> str:
    """`yes`, `no`, or `unclear`."""
    return "unclear" if commercial is None else ("yes" if commercial else "no")


def rows_in_words(card: Card) -> str:
    """What is done with turns out of order, and which rows and fields are left out; empty where no row has turns."""
    if card.rows.format not in CHAT_FORMS:
        return ""
    options = RowOptions.model_validate(card.rows.options)
    told = [f"{name} {policy}" for name, policy in options.turns.model_dump().items()]
    told += [f"left out below {name} {least:g}" for name, least in options.at_least.items()]
    told += [f"{name} ignored" for name in options.ignore]
    return ", ".join(told)


def updated_page(text: str) -> str:
    """A page with the table of the built-in cards between its marks.

    Raises:
        DataError: the page has no marks.
    """
    return with_part(text, BEGIN, END, markdown_table(builtin_cards()))


def main(pages: list[str]) -> None:
    """Bring pages up to date.

    Args:
        pages: Markdown files with the two marks.
    """
    update_pages(pages, updated_page)


if __name__ == "__main__":
    main(sys.argv[1:])
