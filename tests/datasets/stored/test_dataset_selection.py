import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec
from tests.fakes.damages import DAMAGES


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    records = [{"instruction": f"question {row}", "output": f"answer {row}"} for row in range(500)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def load(path: Path | str, seed: int = 0, **fields: Any) -> Dataset:
    source = SourceSpec(**{"name": "rows", "path": str(path), **fields})
    return load_dataset(source, seed=seed, max_bad_rows_share=0.5, quarantine_dir=None)


def numbers(dataset: Dataset) -> tuple[list[int], list[int]]:
    return [item.row for item in dataset.train], [item.row for item in dataset.held_out]


def test_rows_are_chosen_at_random_by_the_seed_and_kept_in_order(rows: Path) -> None:
    train, held_out = numbers(load(rows, max_rows=100, held_out_rows=20))
    assert (len(train), len(held_out)) == (80, 20)
    assert not set(train) & set(held_out)
    assert train == sorted(train) and held_out == sorted(held_out)
    assert max(train) > 400 and min(train) < 100
    assert numbers(load(rows, max_rows=100, held_out_rows=20)) == (train, held_out)
    assert numbers(load(rows, max_rows=100, held_out_rows=20, name="other")) == (train, held_out)
    other_train, other_held_out = numbers(load(rows, seed=1, max_rows=100, held_out_rows=20))
    assert other_train != train and other_held_out != held_out


def test_the_held_out_rows_do_not_depend_on_max_rows_and_smaller_choices_nest(rows: Path) -> None:
    few, few_held_out = numbers(load(rows, max_rows=50, held_out_rows=10))
    many, many_held_out = numbers(load(rows, max_rows=300, held_out_rows=10))
    every, every_held_out = numbers(load(rows, held_out_rows=10))
    assert few_held_out == many_held_out == every_held_out
    assert set(few) < set(many) < set(every)
    assert sorted(every + every_held_out) == list(range(500))


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
@pytest.mark.parametrize("name", ["train.npy", "held_out.npy", "leaks.json"])
def test_a_choice_that_is_not_whole_is_made_again(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    before = numbers(load(rows, max_rows=100, held_out_rows=20))
    (file,) = (tmp_path / "cache").glob(f"**/choices/*/{name}")
    DAMAGES[damage](file)
    assert numbers(load(rows, max_rows=100, held_out_rows=20)) == before


def test_a_repaired_row_moves_no_other_row(rows: Path) -> None:
    before = numbers(load(rows, held_out_rows=20))
    lines = rows.read_text().splitlines()
    broken = next(row for row in range(500) if row not in before[1])
    lines[broken] = "{"
    rows.write_text("\n".join(lines))
    after = numbers(load(rows, held_out_rows=20))
    assert after == ([row for row in before[0] if row != broken], before[1])


def test_training_rows_with_a_held_out_prompt_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rows.jsonl"
    records = [{"instruction": f"question {row % 40}", "output": f"answer {row}"} for row in range(200)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    with caplog.at_level(logging.DEBUG, logger="didact"):
        dataset = load(file, held_out_rows=5)
    asked = {item.prompt for item in dataset.held_out}
    assert not asked & {item.prompt for item in dataset.train}
    num_leaks = 200 - 5 - len(dataset.train)
    assert num_leaks == sum(f"question {row % 40}" in {p[0].content for p in asked} for row in range(200)) - 5
    assert f"{num_leaks} dropped for a held-out row's prompt" in caplog.text
    assert len(load(file, held_out_rows=5, max_rows=60).train) == 55


@pytest.mark.parametrize("fields", [{"held_out_rows": 500}, {"held_out_rows": 900}])
def test_nothing_left_to_train_on_is_an_error_that_names_the_fields(rows: Path, fields: dict[str, int]) -> None:
    with pytest.raises(DataError, match=r"'rows'.*" + ".*".join(fields)):
        load(rows, **fields)


def test_the_fingerprint_follows_the_data_and_not_its_folder(rows: Path, tmp_path: Path) -> None:
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    here, there = load(rows), load(tmp_path / "copy" / "rows.jsonl")
    assert here.fingerprint == there.fingerprint == load(tmp_path / "copy").fingerprint
    (tmp_path / "copy" / "rows.jsonl").write_text(rows.read_text().replace("answer 7", "answer 8", 1))
    assert load(tmp_path / "copy" / "rows.jsonl").fingerprint != here.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"max_rows": 400},
        {"held_out_rows": 3},
        {"seed": 1},
        {"format": "alpaca"},
        {"split": "test"},
        {"revision": "main"},
    ],
)
def test_the_fingerprint_follows_every_setting_that_decides_rows(rows: Path, change: dict[str, Any]) -> None:
    assert load(rows, **change).fingerprint != load(rows).fingerprint
    assert load(rows, weight=3.0, name="other").fingerprint == load(rows).fingerprint


@pytest.mark.fault("D7")
def test_neither_the_names_nor_the_order_of_files_decide_the_rows(tmp_path: Path) -> None:
    first, second = ([{"instruction": f"{text} {row}", "output": text} for row in range(9)] for text in ("x", "y"))
    for folder, (one, two) in {"p": (first, second), "q": (second, first)}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.json").write_text(json.dumps(one))
        (tmp_path / folder / "2.json").write_text(json.dumps(two))
    here, there = (load(tmp_path / folder, max_rows=12, held_out_rows=3) for folder in "pq")
    assert here.fingerprint == there.fingerprint
    assert here.train == there.train and here.held_out == there.held_out
    (tmp_path / "q" / "2.json").write_text(json.dumps([*first[:8], {"instruction": "x 8", "output": "X"}]))
    assert load(tmp_path / "q", max_rows=12, held_out_rows=3).fingerprint != here.fingerprint


def test_settings_without_effect_are_warned_about(rows: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(rows, revision="main")
    assert "split and revision only have an effect" in caplog.text
