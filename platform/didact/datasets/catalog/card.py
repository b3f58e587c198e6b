"""One card a dataset: what it is good for, where it comes from, how its rows are written, what is wrong with it."""

import difflib
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from didact.datasets.forms.field_mapping import FieldMapping
from didact.env import runs_dir
from didact.errors import DataError
from didact.spec import Spec, load_spec
from didact.spec.data import Form

PREFIX = "card:"
NAME = r"^[a-z0-9][a-z0-9.-]{0,63}$"
Generation = Literal["human", "self-instruct", "mixed", "collection", "unknown"]
GENERATIONS: tuple[Generation, ...] = ("human", "self-instruct", "mixed", "collection", "unknown")


class CardSource(Spec):
    """Where a dataset comes from."""

    home: str = Field(min_length=1)
    """Web address of the people who made it."""
    hub: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
    """Hugging Face dataset that holds it; null where only the home does."""
    files: tuple[str, ...] = ()
    """Files in that dataset, as paths or globs; empty for one that the hub serves as a table."""
    converted: bool = False
    """The hub's files are a copy in instruction, input, output form; only files from the home are written as `raw`
    says."""
    path: str | None = None
    """File, folder, glob or URL, for cards made by `didact data add`."""


class CardRows(Spec):
    """How the rows of a dataset are written at its home."""

    container: str = Field(min_length=1)
    """The files, in words."""
    files: tuple[str, ...] = ()
    """Globs below a local folder that find the raw files there; empty for all that the folder itself holds."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the reader must be told of the files, as in `options` of a source; a recipe's own options go before."""
    format: Literal["auto"] | Form = "auto"
    """Form of the rows after the mapping, a format of `data.sources`."""
    mapping: FieldMapping = FieldMapping()
    """Fields of a row -> roles of the form."""
    example: dict[str, str | dict[str, Any] | list[dict[str, Any]]] = Field(default_factory=dict)
    """File name -> content of a made-up row in this shape: text, one record, or a list of records."""


class Card(Spec):
    """What is known of one dataset."""

    name: str = Field(pattern=NAME)
    """Name in `card:NAME`."""
    title: str = Field(min_length=1)
    """Name in tables."""
    good_for: str = Field(min_length=1)
    """When to choose it, in one sentence."""
    languages: tuple[str, ...] = Field(min_length=1)
    """ISO 639-1 codes, most frequent first; `multi` where there are more than four."""
    tasks: tuple[str, ...] = Field(min_length=1)
    """What its rows ask for, in words such as `general`, `dialogue`, `math`, `table-qa`."""
    generation: Generation
    """Who wrote the answers; `collection` is made of other datasets."""
    reasoning: bool
    """Answers come with the steps or the explanation that leads to them."""
    num_rows: int | None = Field(default=None, ge=1)
    """Rows to train on; null where nobody counted."""
    licence: str = Field(default="unknown", min_length=1)
    """SPDX id, the terms in words where there is none, or `unknown`."""
    commercial: bool | None = None
    """Whether these terms allow commercial use: false where the authors forbid it anywhere or a part does; null where
    nothing is stated, or the terms of parts vary or have changed."""
    licence_note: str = ""
    """What else is known of the terms."""
    source: CardSource
    """Where it comes from."""
    rows: CardRows
    """How its rows are written."""
    quality: tuple[str, ...] = ()
    """Known issues."""
    overlaps: tuple[str, ...] = ()
    """Cards that share rows or questions with it."""

    @field_validator("overlaps")
    @classmethod
    def _not_itself(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("name") in value:
            raise ValueError("a dataset does not overlap with itself; remove its own name")
        return value


def load_cards(user_cards: Path | None = None) -> tuple[Card, ...]:
    """All cards, by name: the built-in ones and those that the user added.

    Args:
        user_cards: folder of the user's cards; None for `user_card_dir()`.

    Raises:
        SpecError: a card of the user's that cannot be used, with file and field.
        DataError: a card of the user's under a built-in name, or in a file of another name.
    """
    folder = user_card_dir() if user_cards is None else user_cards
    added = [_user_card(file) for file in sorted(folder.glob("*.yaml"))]
    return tuple(sorted([*builtin_cards(), *added], key=lambda card: card.name))


def find_card(name: str, cards: Sequence[Card] | None = None) -> Card:
    """The card of that name.

    Args:
        name: as in `card:NAME`.
        cards: where to look; None for `load_cards()`.

    Raises:
        DataError: there is none; names close to it are shown.
    """
    known = {card.name: card for card in (load_cards() if cards is None else cards)}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "see `didact data list`"
        raise DataError(f"there is no dataset {name!r} in the catalog; {hint}")
    return known[name]


def filter_cards(
    cards: Iterable[Card],
    *,
    language: str | None = None,
    task: str | None = None,
    generation: str | None = None,
    reasoning: bool | None = None,
    commercial: bool | None = None,
    licence: str | None = None,
    max_rows: int | None = None,
    min_rows: int | None = None,
) -> tuple[Card, ...]:
    """The cards that fit every condition that is given.

    Args:
        cards: what to choose from.
        language: one of the card's languages; a card for `multi` languages fits all.
        task: one of the card's tasks.
        generation: who wrote the answers.
        reasoning: with or without rationales.
        commercial: True: allowed for sure; False: forbidden for sure.
        licence: part of the licence's name, in any case.
        max_rows: largest size; sets of unknown size do not fit a size.
        min_rows: smallest size.
    """
    return tuple(
        card
        for card in cards
        if (language is None or language in card.languages or "multi" in card.languages)
        and (task is None or task in card.tasks)
        and (generation is None or generation == card.generation)
        and (reasoning is None or reasoning == card.reasoning)
        and (commercial is None or commercial == card.commercial)
        and (licence is None or licence.lower() in card.licence.lower())
        and _fits(card.num_rows, min_rows, max_rows)
    )


def user_card_dir() -> Path:
    """Where `didact data add` writes cards."""
    return runs_dir() / "cards"


@cache
def builtin_cards() -> tuple[Card, ...]:
    """The cards that come with the package."""
    folder = Path(str(resources.files("didact.datasets.catalog") / "cards"))
    return tuple(load_spec(Card, file) for file in sorted(folder.glob("*.yaml")))


def _user_card(file: Path) -> Card:
    card = load_spec(Card, file)
    if card.name != file.stem:
        raise DataError(f"{file}: holds the card {card.name!r}; name the file {card.name}.yaml")
    if any(card.name == known.name for known in builtin_cards()):
        raise DataError(f"{file}: {card.name!r} is the name of a built-in card; rename yours, in the file and its name")
    return card


def _fits(num_rows: int | None, min_rows: int | None, max_rows: int | None) -> bool:
    if min_rows is None and max_rows is None:
        return True
    return num_rows is not None and (min_rows or 0) <= num_rows <= (num_rows if max_rows is None else max_rows)
