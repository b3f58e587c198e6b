"""Sets of cards that go together: the mixtures of the Alpaca-CoT project, and chain of thought as one."""

from collections.abc import Sequence

from didact.datasets.catalog.card import Card, find_card
from didact.errors import DataError

_COT = (
    *("aqua-cot", "creak-cot", "ecqa-cot", "esnli-cot", "gsm8k-cot", "qasc-cot", "qed-cot"),
    *("sensemaking-cot", "strategyqa-cot"),
)

GROUPS: dict[str, tuple[str, ...]] = {
    "chain-of-thought": _COT,
    "alpaca-cot": ("alpaca-cleaned", *_COT),
    "alpaca-belle": ("alpaca-cleaned", "belle-0.5m"),
    "alpaca-belle-cot": ("alpaca-cleaned", "belle-0.5m", *_COT),
}
"""Group -> its cards. In a recipe they stay sources of their own: each keeps its weight, held-out rows and terms."""


def group_cards(name: str, cards: Sequence[Card]) -> tuple[Card, ...]:
    """The cards of a group, in its order.

    Raises:
        DataError: there is no such group.
    """
    if name not in GROUPS:
        raise DataError(f"there is no group {name!r}; expected one of {', '.join(GROUPS)}")
    return tuple(find_card(member, cards) for member in GROUPS[name])
