"""Which training rows stay under each policy."""

import pickle
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didact.datasets import Conversation, Dataset, Message
from didact.datasets.quality import ContaminationIndex, EvalText, Kept, Match, Twin, filtered, row_filters
from didact.datasets.quality.contamination import find_contaminated
from didact.datasets.quality.duplicates import jaccard
from didact.datasets.quality.texts import digest, shingles
from didact.datasets.quality.twins import find_twins
from didact.env import cache_dir
from didact.errors import DataError
from didact.spec import DataSpec, DuplicatesSpec, validate
from tests.fakes.datasets import stored_dataset

TALE = "the quick brown fox jumps over the lazy dog while the old cat sleeps near the warm stove and dreams of mice"
QUESTION = EvalText("exam", "q7", "How many legs do seven spiders and two ants have together?")


def talk(row: int, user: str, answer: str = "Yes.") -> Conversation:
    return Conversation((Message("user", user), Message("assistant", answer)), row)


def dataset(name: str, *users: str, held_out: tuple[str, ...] = ()) -> Dataset:
    kept_apart = tuple(talk(100 + row, user) for row, user in enumerate(held_out))
    train = tuple(talk(10 * row, user) for row, user in enumerate(users))
    return stored_dataset(cache_dir(), name, [*kept_apart, *train], len(kept_apart))


def data(**changes: Any) -> DataSpec:
    return validate(DataSpec, {"sources": [{"name": "a", "path": "a.json"}], **changes}, "data")


def kept(found: list[Kept]) -> list[list[bool]]:
    return [each.keep.tolist() for each in found]


def twins(datasets: list[Dataset], **settings: Any) -> list[Kept]:
    return find_twins(datasets, DuplicatesSpec(**settings))


def contaminated(source: Dataset, *questions: EvalText) -> Kept:
    return find_contaminated(source, ContaminationIndex(questions))


@pytest.fixture
def two() -> list[Dataset]:
    return [
        dataset("a", "red", "Red ", "blue", TALE, "green", held_out=("black",)),
        dataset("b", "red", "black", TALE + " too", "white", "white"),
    ]


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
def test_later_twins_and_twins_of_held_out_rows_go(
    two: list[Dataset], duplicates: dict[str, Any], dropped: tuple[list[int], ...]
) -> None:
    found = twins(two, **duplicates)
    assert [[index for index, stays in enumerate(row) if not stays] for row in kept(found)] == list(dropped)


def test_findings_name_the_twin(two: list[Dataset]) -> None:
    first, second = twins(two, within="drop", across="drop", near=True)
    assert first.found == {"exact_duplicate": 1}
    assert first.examples[0].cause == Twin("a", 0, False, 1.0)
    assert second.found == {"exact_duplicate": 3, "near_duplicate": 1}
    assert (second.dropped, second.num_dropped) == (second.found, 4)
    causes = {finding.row: finding.cause for finding in second.examples}
    assert causes[10] == Twin("a", 100, True, 1.0)
    near = causes[20]
    assert isinstance(near, Twin)
    assert (near.source, near.row, near.similarity < 1) == ("a", 30, True)


def test_prompts_alone_may_decide() -> None:
    rows = [talk(0, "Name a colour.", "Red."), talk(1, "Name a colour.", "Blue.")]
    one = stored_dataset(cache_dir(), "a", rows)
    assert kept(twins([one], within="drop")) == [[True, True]]
    assert kept(twins([one], within="drop", compare="prompt")) == [[True, False]]


def test_dropping_agrees_with_comparing_every_pair() -> None:
    words = [f"w{number}" for number in range(40)]
    rows = [" ".join([*words[:at], f"x{new}", *words[at:]]) for at, new in product(range(0, 40, 5), range(8))]
    sources = [dataset("a", *rows[::2]), dataset("b", *rows[1::2], *rows[:10])]
    for within, across in (("drop", "keep"), ("keep", "drop"), ("drop", "drop")):
        assert kept(twins(sources, within=within, across=across, near=True)) == by_hand(sources, within, across)


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


def test_contaminated_rows_go_and_each_is_counted_once() -> None:
    source = dataset("a", "red", ASKED, "blue", held_out=(ASKED,))
    found = contaminated(source, QUESTION)
    assert found.keep.tolist() == [True, False, True]
    assert found.found == found.dropped == {"contaminated:exam": 1}
    (finding,) = found.examples
    assert finding.row == 10
    assert finding.cause == Match("exam", "q7", "how many legs do seven spiders and two ants have together")
    twice = contaminated(source, QUESTION, EvalText("other", "1", QUESTION.text))
    assert twice.found == {"contaminated:exam": 1, "contaminated:other": 1}
    assert (twice.dropped, twice.num_dropped) == ({"contaminated:exam": 1}, 1)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Dataset]:
    """Two sources: a contaminated row with a twin in each, and a twin of another row."""
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    return [
        stored_dataset(tmp_path, "a", [talk(0, "black"), talk(1, ASKED), talk(2, "red")], held_out=1, parts=2),
        stored_dataset(tmp_path, "b", [talk(0, "red"), talk(1, ASKED), talk(2, "white"), talk(3, "white", "No.")]),
    ]


class Questions:
    """Counts how often somebody asks."""

    def __init__(self, *texts: EvalText) -> None:
        self.texts, self.asked = texts, 0

    def __call__(self) -> Iterator[EvalText]:
        self.asked += 1
        return iter(self.texts)


DROP = {"contamination": {"policy": "drop"}, "duplicates": {"within": "drop", "across": "drop"}}


def test_by_default_no_text_is_read_and_no_question_asked(stored: list[Dataset], tmp_path: Path) -> None:
    questions = Questions(QUESTION)
    assert filtered(stored, row_filters(data(), questions)) == tuple(stored)
    assert questions.asked == 0
    assert not (tmp_path / "filters").exists()


def test_filters_follow_each_other_and_of_two_twins_no_contaminated_one_stays(stored: list[Dataset]) -> None:
    one, two = filtered(stored, row_filters(data(**DROP), Questions(QUESTION)))
    assert [row.row for row in one.train] == [2]
    assert [row.row for row in two.train] == [2, 3]
    assert one.dropped == {"contaminated:exam": 1}
    assert two.dropped == {"contaminated:exam": 1, "exact_duplicate": 1}
    fingerprints = {each.fingerprint for each in (*stored, one, two)}
    assert len(fingerprints) == 4, "rows that go make other data"
    without_exam = filtered(stored, row_filters(data(**DROP), Questions()))
    assert [each.dropped for each in without_exam] == [{}, {"exact_duplicate": 2}]


def test_a_second_start_searches_nothing(stored: list[Dataset], tmp_path: Path) -> None:
    first = filtered(stored, row_filters(data(**DROP), Questions(QUESTION)))
    shards = sorted((tmp_path / "filters").rglob("*.npy"))
    assert len(shards) == 4, "the contaminated rows of each source, the twins of both"
    # Nobody can read a text any more, and the answer is the same.
    for path in (tmp_path / "conversations").rglob("*.texts.arrow"):
        path.unlink()
    stored = pickle.loads(pickle.dumps(stored))
    again = filtered(stored, row_filters(data(**DROP), Questions(QUESTION)))
    assert [each.fingerprint for each in again] == [each.fingerprint for each in first]
    assert [each.dropped for each in again] == [each.dropped for each in first]
    for changed, questions in (
        (DROP, Questions(EvalText("exam", "q7", "Which rivers flow through more than two states of the union?"))),
        ({**DROP, "contamination": {"policy": "drop", "ngram": 9}}, Questions(QUESTION)),
        ({**DROP, "duplicates": {"within": "drop"}}, Questions(QUESTION)),
    ):
        with pytest.raises(DataError, match="is missing"):
            filtered(stored, row_filters(data(**changed), questions))


def test_what_is_remembered_is_what_was_found(stored: list[Dataset]) -> None:
    _, *searches = row_filters(data(**DROP), Questions(QUESTION))
    plain = [
        [contaminated(each, QUESTION) for each in stored],
        twins(stored, within="drop", across="drop"),
    ]
    for search, expected in zip(searches, plain, strict=True):
        for _ in range(2):
            for found, wanted in zip(search(stored), expected, strict=True):
                assert np.array_equal(found.keep, wanted.keep)
                assert (found.dropped, found.found, found.examples) == (wanted.dropped, wanted.found, wanted.examples)
        assert any(each.examples for each in expected)


def test_a_damaged_memory_is_made_again(stored: list[Dataset], tmp_path: Path) -> None:
    first = filtered(stored, row_filters(data(**DROP), Questions(QUESTION)))
    for path in (tmp_path / "filters").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-1] + b"\7")
    again = filtered(stored, row_filters(data(**DROP), Questions(QUESTION)))
    assert [each.fingerprint for each in again] == [each.fingerprint for each in first]


def test_fail_names_source_row_question_and_words(stored: list[Dataset]) -> None:
    filters = row_filters(data(contamination={"policy": "fail"}), Questions(QUESTION))
    for _ in range(2):  # also when it is remembered
        with pytest.raises(DataError) as caught:
            filtered(stored, filters)
        for part in ("- a: 1 rows with questions of exam", "- b: 1 rows", "row 1", "q7", "contamination.policy"):
            assert part in str(caught.value)
    other = Questions(EvalText("exam", "q1", "Which rivers flow through more than two states of the union?"))
    clean = row_filters(data(contamination={"policy": "fail"}), other)
    assert filtered(stored, clean) == tuple(stored)


def test_settings_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    row_filters(data(duplicates={"near": True}), Questions())
    assert "data.duplicates.near has no effect" in caplog.text
