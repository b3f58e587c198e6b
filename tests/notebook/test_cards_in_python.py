"""`didact.cards`: the catalog as a list that shows itself."""

import pytest

import didact
from didact.errors import DataError


def test_cards_are_chosen_by_conditions() -> None:
    cards = didact.cards(task="math", reasoning=True, commercial=True)
    assert [card.name for card in cards] == ["aqua-cot", "gsm8k-cot"]
    assert "gsm8k-cot" in str(cards) and "dolly" not in str(cards)
    assert cards["gsm8k-cot"] is cards[1] and list(cards[1:]) == [cards[1]]
    assert len(didact.cards()) == cards.num_known


def test_a_card_shows_itself_as_it_is_written() -> None:
    shown = didact.cards()["gsm8k-cot"]._repr_mimebundle_()["text/plain"]
    assert shown.startswith("name: gsm8k-cot\n")
    assert str(didact.cards()["gsm8k-cot"]) == shown


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"task": "maths"}, "task 'maths' is no card's; known: .*math"),
        ({"generation": "robot"}, "generation 'robot' is no card's; known: .*human"),
        ({"group": "chain"}, "chain-of-thought"),
        ({"language": "xx"}, "language 'xx' is no card's; known: .*en.*zh; those of other languages are among `multi`"),
        ({"wrong": 1}, "no condition 'wrong'; there are group, language, "),
    ],
)
def test_words_that_no_card_has_are_refused(conditions: dict, told: str) -> None:
    with pytest.raises(DataError, match=told):
        didact.cards(**conditions)


def test_an_unknown_name_is_answered_with_those_nearest() -> None:
    with pytest.raises(DataError, match="gsm8k-cot"):
        didact.cards()["gsm8k"]
