"""Which questions of an evaluation training rows hold, one by one: as they are, or changed a little."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import json
from pathlib import Path

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.quality import EvalText, Seen, SeenIndex, find_seen
from didact.spec import SourceSpec

STATION = "A train leaves the old station at nine and travels forty miles to the coast before it stops for water"
PEARS = "Would a ripe pear sink in fresh water or would it rather float for a while?"
CHINESE = "如果一个长方形的周长是二十四厘米，长是宽的两倍，那么这个长方形的面积是多少平方厘米？"


def rows(folder: Path, *prompts: str) -> Dataset:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"instruction": each, "output": "Yes."}) + "\n" for each in prompts))
    return load_dataset(SourceSpec(name="rows", path=str(path)), seed=0, max_bad_rows_share=0.0, quarantine_dir=None)


def seen(dataset: Dataset, *questions: str) -> dict[str, Seen]:
    index = SeenIndex([EvalText("exam", str(number), text) for number, text in enumerate(questions)])
    return {item: found for (_, item), found in index.search(dataset).items()}


def test_each_question_is_told_on_its_own(tmp_path: Path) -> None:
    dataset = rows(tmp_path, "Say hello to my neighbour.", f"Think: {STATION}!", PEARS.upper())
    found = seen(dataset, STATION, "Is a lemon more sour than the sweetest orange of the market?", PEARS, STATION)
    assert {item: (each.row, each.changed) for item, each in found.items()} == {
        **{"0": (1, False), "2": (2, False)},
        "3": (1, False),  # asks the same as the first
    }
    assert str(found["2"]).startswith("rows row 2 holds: would a ripe pear sink")


@pytest.mark.parametrize(
    ("training", "held"),
    [
        (PEARS.replace("float", "swim"), True),  # 12 of 16 words in one run
        (PEARS.replace("fresh", "salt").replace("while", "day"), False),  # 7 words in a row are no run
        (PEARS.replace("sink", "drown").replace("float", "swim"), False),
        ("A ripe pear: would it float, or sink in water that is fresh, for a while or longer?", False),
    ],
)
def test_a_question_that_was_changed_a_little_is_told(tmp_path: Path, training: str, held: bool) -> None:
    found = seen(rows(tmp_path, training, "Hello."), PEARS)
    assert [each.changed for each in found.values()] == [True] * held


def test_a_changed_question_without_spaces_is_told(tmp_path: Path) -> None:
    found = seen(rows(tmp_path, CHINESE.replace("二十四", "三十六").replace("平方", "立方"), "Hello."), CHINESE)
    assert [each.changed for each in found.values()] == [True]


def test_the_unchanged_row_is_named_before_a_changed_one(tmp_path: Path) -> None:
    found = seen(rows(tmp_path, PEARS.replace("float", "swim"), PEARS), PEARS)
    assert (found["0"].row, found["0"].changed) == (1, False)


def test_wording_that_many_questions_share_is_no_question(tmp_path: Path) -> None:
    wording = "Tell me what the shop has earned today when it sold {} apples and {} pears to {} people"
    questions = [wording.format(n * 7 + 11, n * 5 + 300, n * 3 + 5000) for n in range(20)]
    other = wording.format(90001, 90002, 90003)
    assert seen(rows(tmp_path, other, "Hello."), *questions) == {}
    assert list(seen(rows(tmp_path, questions[4], "Hello."), *questions)) == ["4"]


def test_a_search_is_kept_with_its_rows_and_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    changed = rows(tmp_path, "Hello.", PEARS.replace("float", "swim"))
    (other := tmp_path / "other").mkdir()
    whole = rows(other, "Good evening.", "Hello.", PEARS)
    asked = [EvalText("exam", "0", PEARS), EvalText("exam", "1", STATION)]
    found = find_seen([changed, whole], asked)
    assert {name: (each.row, each.changed) for name, each in found.items()} == {("exam", "0"): (2, False)}
    assert find_seen([whole, changed], asked) == found
    kept = sorted((tmp_path / "cache" / "filters").glob("*/manifest.json"))
    assert len(kept) == 2, "each source on its own"
    for manifest in kept:  # whoever reads it back does not search
        value = json.loads(manifest.read_text())
        value["parts"][0]["counts"]["found"][0]["seen"]["row"] = 70
        manifest.write_text(json.dumps(value))
    assert [each.row for each in find_seen([changed, whole], asked).values()] == [70]
    assert [each.row for each in find_seen([whole], asked[:1]).values()] == [2], "other questions, another search"
    assert [each.row for each in find_seen([whole], asked, ngram=5).values()] == [2]
