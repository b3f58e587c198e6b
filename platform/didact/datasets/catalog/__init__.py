"""The catalog: what each dataset is good for, where it comes from, how it is written, and what its terms allow.

    cards/*.yaml (and the user's own) -> Card -> filters, groups, the licence gate
    `card:NAME` in a recipe -> files or hub table + field mapping -> the readers of `didact.datasets`

Example:
    >>> from didact.datasets.catalog import filter_cards, load_cards
    >>> [card.name for card in filter_cards(load_cards(), task="math", reasoning=True, commercial=True)]
    ['aqua-cot', 'gsm8k-cot']
"""

from didact.datasets.catalog.card import (
    GENERATIONS,
    PREFIX,
    Card,
    CardRows,
    CardSource,
    filter_cards,
    find_card,
    load_cards,
    user_card_dir,
)
from didact.datasets.catalog.card_file import card_yaml
from didact.datasets.catalog.groups import GROUPS, group_cards
from didact.datasets.catalog.licences import check_commercial, commercial_of, licence_of
from didact.datasets.catalog.resolve import ROOT_OPTION, CardPlace, card_of, named_card, resolve_card

__all__ = [
    "GENERATIONS",
    "GROUPS",
    "PREFIX",
    "ROOT_OPTION",
    "Card",
    "CardPlace",
    "CardRows",
    "CardSource",
    "card_of",
    "card_yaml",
    "check_commercial",
    "commercial_of",
    "filter_cards",
    "find_card",
    "group_cards",
    "licence_of",
    "load_cards",
    "named_card",
    "resolve_card",
    "user_card_dir",
]
