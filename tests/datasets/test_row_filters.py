"""Which training rows stay under each policy."""

from itertools import product
from typing import Any

import pytest

from didact.datasets import Conversation, Dataset, Message
from didact.datasets.quality import EvalText, Match, RowFilter, Twin, row_filters
from didact.datasets.quality.duplicates import jaccard
from didact.datasets.quality.texts import digest, shingles
from didact.errors import DataError
from didact.spec import DataSpec, validate

TALE = "the quick brown fox jumps over the lazy dog while the old cat sleeps near the warm stove and dreams of mice"
QUESTION = EvalText("exam", "q7", "How many legs do seven spiders and two ants have together?")


def talk(row: int, user: str, answer: str = "Yes.") -> Conversation:
    return Conversation((Message("user", user), Message("assistant", answer)), row)


def dataset(name: str, *users: str, held_out: tuple[str, ...] = ()) -> Dataset:
    kept_apart = tuple(talk(100 + row, user) for row, user in enumerate(held_out))
    train = tuple(talk(10 * row, user) for row, user in enumerate(users))
    return Dataset(name, train, kept_apart, name, len(users), 0, None)


def data(**changes: Any) -> DataSpec:
    return validate(DataSpec, {"sources": [{"name": "a", "path": "a.json"}], **changes}, "data")


def kept(filters: tuple[RowFilter, ...]) -> list[list[bool]]:
    return [each.keep.tolist() for each in filters]


A = dataset("a", "red", "Red ", "blue", TALE, "green", held_out=("black",))
B = dataset("b", "red", "black", TALE + " too", "white", "white")


def test_nothing_is_dropped_or_looked_for_by_default() -> None:
    filters = row_filters([A, B], data())
    assert kept(filters) == [[True] * 5, [True] * 5]
    assert [(each.source, each.found, each.num_dropped) for each in filters] == [("a", {}, 0), ("b", {}, 0)]


@pytest.mark.parametrize(
    ("duplicates", "dropped"),
    [
        ({"within": "drop"}, ([1], [1, 4])),
        ({"across": "drop"}, ([], [0, 1])),
        ({"within": "drop", "across": "drop"}, ([1], [0, 1, 4])),
        ({"within": "drop", "across": "drop", "near": True}, ([1], [0, 1, 2, 4])),
        ({"within": "drop", "near": True}, ([1], [1, 4])),
        ({"across": "drop", "near": True, "threshold": 0.99}, ([], [0, 1])),
    ],
)
def test_later_twins_and_twins_of_held_out_rows_go(duplicates: dict[str, Any], dropped: tuple[list[int], ...]) -> None:
    filters = row_filters([A, B], data(duplicates=duplicates))
    assert [[index for index, stays in enumerate(row) if not stays] for row in kept(filters)] == list(dropped)


def test_findings_name_the_twin() -> None:
    first, second = row_filters([A, B], data(duplicates={"within": "drop", "across": "drop", "near": True}))
    assert first.found == {"exact_duplicate": 1}
    assert first.examples[0].cause == Twin("a", 0, False, 1.0)
    assert second.found == {"exact_duplicate": 3, "near_duplicate": 1}
    assert second.num_dropped == 4
    causes = {finding.row: finding.cause for finding in second.examples}
    assert causes[10] == Twin("a", 100, True, 1.0)
    near = causes[20]
    assert isinstance(near, Twin)
    assert (near.source, near.row, near.similarity < 1) == ("a", 30, True)


def test_prompts_alone_may_decide() -> None:
    one = Dataset("a", (talk(0, "Name a colour.", "Red."), talk(1, "Name a colour.", "Blue.")), (), "a", 2, 0, None)
    assert kept(row_filters([one], data(duplicates={"within": "drop"}))) == [[True, True]]
    assert kept(row_filters([one], data(duplicates={"within": "drop", "compare": "prompt"}))) == [[True, False]]


def test_dropping_agrees_with_comparing_every_pair() -> None:
    words = [f"w{number}" for number in range(40)]
    rows = [" ".join([*words[:at], f"x{new}", *words[at:]]) for at, new in product(range(0, 40, 5), range(8))]
    sources = [dataset("a", *rows[::2]), dataset("b", *rows[1::2], *rows[:10])]
    for within, across in (("drop", "keep"), ("keep", "drop"), ("drop", "drop")):
        spec = data(duplicates={"within": within, "across": across, "near": True})
        assert kept(row_filters(sources, spec)) == by_hand(sources, within, across)


def by_hand(sources: list[Dataset], within: str, across: str) -> list[list[bool]]:
    stays: list[tuple[int, Conversation]] = []
    answer = []
    for number, source in enumerate(sources):
        answer.append([True] * len(source.train))
        for place, row in enumerate(source.train):
            relevant = [other for owner, other in stays if (within if owner == number else across) == "drop"]
            if any(same(row, other) for other in relevant):
                answer[-1][place] = False
            else:
                stays.append((number, row))
    return answer


def same(left: Conversation, right: Conversation) -> bool:
    equal = digest(left.messages) == digest(right.messages)
    return equal or jaccard(shingles(left.messages), shingles(right.messages)) >= 0.8


ASKED = f"Please answer: {QUESTION.text}"


def test_contaminated_rows_are_counted_or_dropped() -> None:
    source = dataset("a", "red", ASKED, "blue", held_out=(ASKED,))
    (counted,) = row_filters([source], data(), [QUESTION])
    assert counted.found == {"contaminated:exam": 1}
    assert counted.num_dropped == 0
    (twice,) = row_filters([source], data(), [QUESTION, EvalText("other", "1", QUESTION.text)])
    assert (twice.found, twice.num_contaminated) == ({"contaminated:exam": 1, "contaminated:other": 1}, 1)
    (dropped,) = row_filters([source], data(contamination={"policy": "drop"}), [QUESTION])
    assert dropped.keep.tolist() == [True, False, True]
    (finding,) = dropped.examples
    assert finding.row == 10
    assert finding.cause == Match("exam", "q7", "how many legs do seven spiders and two ants have together")


def test_of_two_twins_no_contaminated_one_stays() -> None:
    one = dataset("a", ASKED, "red")
    both = {"contamination": {"policy": "drop"}, "duplicates": {"within": "drop", "across": "drop"}}
    filters = row_filters([one, dataset("b", "red", ASKED)], data(**both), [QUESTION])
    assert kept(filters) == [[False, True], [False, False]]
    assert filters[1].found == {"contaminated:exam": 1, "exact_duplicate": 1}


def test_fail_names_source_row_question_and_words() -> None:
    with pytest.raises(DataError) as caught:
        row_filters([dataset("mine", "red", ASKED), A], data(contamination={"policy": "fail"}), [QUESTION])
    for part in ("mine: 1 rows with questions of exam", "row 10", "q7", "seven spiders", "contamination.policy"):
        assert part in str(caught.value)
    assert kept(row_filters([A], data(contamination={"policy": "fail"}), [QUESTION])) == [[True] * 5]


def test_settings_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    row_filters([A], data(duplicates={"near": True}))
    assert "data.duplicates.near has no effect" in caplog.text
