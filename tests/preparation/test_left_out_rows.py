"""Rows that a recipe leaves out are counted everywhere, and workers look for none of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from didact.errors import DataError
from didact.evaluation import task_texts
from didact.preparation import DataFacts, Plan, PreparedRecord, open_prepared, prepare_data
from didact.runs import Run
from didact.spec import FinetuneSpec
from tests.conftest import shared_data
from tests.fakes.recipes import tiny_recipe

NUM_CONTAMINATED = 7


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(folder: Path, policy: str, **changes: Any) -> FinetuneSpec:
    """Sixty sums, seven of which are an evaluation's questions, one in its tasks and six in a set it names."""
    asked = [{"question": f"Add {n} and {n + 3}.", "answer": f"#### {2 * n + 3}"} for n in range(50, 57)]
    (folder / "task.jsonl").write_text(json.dumps(asked[0]) + "\n")
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked[1:]))
    against = [{"name": "exam", "path": str(folder / "set.jsonl"), "question": "question"}]
    return tiny_recipe(
        folder,
        data__contamination={"policy": policy, "against": against},
        data__sources=[{"name": "sums", "path": str(folder / "sums.jsonl")}],
        evaluation={"tasks": [{"task": "gsm8k", "path": str(folder / "task.jsonl"), "num_items": 1}]},
        **changes,
    )


def test_counts_land_in_dataset_record_and_plan(tmp_path: Path) -> None:
    spec = recipe(tmp_path, "drop")
    prepared = prepare_data(spec, task_texts=task_texts)
    expected = {"contaminated:gsm8k": 1, "contaminated:exam": NUM_CONTAMINATED - 1}
    assert prepared.datasets[0].dropped == expected
    assert len(prepared.mixture.tables[0]) == 60 - NUM_CONTAMINATED
    run = Run(tmp_path / "run")
    run.path.mkdir()
    DataFacts.of(spec, prepared).write(run.data)
    (source,) = json.loads(run.data.read_text())["sources"]
    assert (source["rows_dropped"], source["rows_train"]) == (expected, 60 - NUM_CONTAMINATED)
    console = Console(width=100, record=True)
    console.print(Plan.of(spec, prepared).render())
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["dataset", "weight", "rows", "bad", "dropped"] in [line[:5] for line in lines]
    assert ["sums", "1", "53", "0", "7"] in [line[:5] for line in lines]
    allowed = prepare_data(recipe(tmp_path, "allow"), task_texts=task_texts)
    assert (allowed.datasets[0].dropped, len(allowed.mixture.tables[0])) == ({}, 60)
    assert allowed.mixture.fingerprint != prepared.mixture.fingerprint


def test_workers_open_what_is_left_without_a_search(tmp_path: Path, cache: Path) -> None:
    spec = recipe(tmp_path, "drop")
    prepared = prepare_data(spec, task_texts=task_texts)
    PreparedRecord.of(prepared).write(tmp_path / "prepared.json")
    for name in ("task.jsonl", "set.jsonl"):
        (tmp_path / name).rename(tmp_path / f"{name}.away")
    (cache / "filters").rename(cache / "away")
    opened = open_prepared(tmp_path / "prepared.json", spec, task_texts)
    assert opened.mixture.fingerprint == prepared.mixture.fingerprint
    assert [list(sample.ids) for sample in opened.mixture.tables[0]] == [
        list(sample.ids) for sample in prepared.mixture.tables[0]
    ]
    assert not (cache / "filters").exists()


def test_a_machine_without_the_cache_leaves_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recipe(tmp_path, "drop", data__duplicates={"within": "drop"})
    record = PreparedRecord.of(prepare_data(spec, task_texts=task_texts))
    record.write(tmp_path / "prepared.json")
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "elsewhere"))
    assert open_prepared(tmp_path / "prepared.json", spec, task_texts).mixture.fingerprint == record.mixture


def test_questions_of_tasks_are_never_passed_over(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="task_texts is not given"):
        prepare_data(recipe(tmp_path, "drop"))
    prepare_data(recipe(tmp_path, "allow"))


def test_the_real_strategyqa_is_refused_or_left_out(tmp_path: Path) -> None:
    real = shared_data()
    wanted = ("strategyqa_train.tsv", "creak_train.tsv")
    for name in wanted:
        (tmp_path / name).symlink_to(real / "raw" / "chain_of_thought" / name)
    exam = {"name": "strategyqa", "path": str(real / "eval" / "strategyqa" / "task.json"), "question": "examples.input"}
    source = {"name": "cot", "path": str(tmp_path / "*_train.tsv")}

    def spec(policy: str) -> FinetuneSpec:
        return tiny_recipe(tmp_path, data__sources=[source], data__contamination={"policy": policy, "against": [exam]})

    with pytest.raises(DataError, match=r"cot: 2,000 rows with questions of strategyqa"):
        prepare_data(spec("fail"))
    before, after = (prepare_data(spec(policy)).datasets[0] for policy in ("allow", "drop"))
    assert after.dropped == {"contaminated:strategyqa": 2000}
    assert len(before.train) - len(after.train) == 2000
