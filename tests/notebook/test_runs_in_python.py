"""Runs from a table in memory: planned, trained, resumed, evaluated, searched, and asked."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

import didact
from didact.env import cache_dir
from didact.preparation import PreparedRecord, open_prepared, prepare_data
from didact.spec import FinetuneSpec
from tests.fakes.recipes import tiny_recipe

ROWS = pd.DataFrame([{"instruction": f"Add {n} and {n + 3}.", "output": f"{2 * n + 3} it is"} for n in range(60)])


def tiny(folder: Path, **changes: object) -> FinetuneSpec:
    """The tiny recipe on rows in memory."""
    data = {"sources": [{"name": "sums", "path": ROWS, "held_out_rows": 8}]}
    training = {"steps": 4, "checkpoint_every": 2, "evaluate_every": 2}
    return didact.recipe(tiny_recipe(folder), data=data, training=training, placement={"num_workers": 1}, **changes)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIDACT_CACHE", "DIDACT_RUNS"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_a_plan_counts_the_rows_in_memory(tmp_path: Path) -> None:
    plan = didact.plan(tiny(tmp_path))
    (source,) = plan.data.sources
    assert (source.name, source.path[:7], plan.data.num_steps) == ("sums", "memory:", 4)
    assert "sums" in str(plan)


def test_workers_need_no_row_once_the_data_is_prepared(tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    prepared = prepare_data(spec)
    PreparedRecord.of(prepared).write(tmp_path / "prepared.json")
    shutil.rmtree(cache_dir() / "tables")
    assert open_prepared(tmp_path / "prepared.json", spec).mixture.fingerprint == prepared.mixture.fingerprint


@pytest.mark.ray
@pytest.mark.nightly
def test_a_run_is_trained_once_and_asked_by_its_result(tmp_path: Path) -> None:
    first = didact.finetune(tiny(tmp_path))
    assert first.training is not None and first.training.steps == 4
    assert first.report is not None and "tiny on" in str(first)
    again = didact.finetune(tiny(tmp_path))
    assert again.training is None, "the same rows are the same run"
    report = didact.evaluate(adapter=first)
    assert report.adapter == first.report.adapter
    with didact.load(first) as model:
        assert Path(first.run.spec().model.base).name == "base"
        assert model.predict_rows(["Add 1 and 4."])[0]["prediction"] == model.chat("Add 1 and 4.")


@pytest.mark.ray
@pytest.mark.nightly
def test_a_model_trained_in_full_is_measured_and_asked_by_its_result(tmp_path: Path) -> None:
    trained = didact.finetune(tiny(tmp_path, adapter={"method": "full"}))
    assert trained.report is not None
    report = didact.evaluate(adapter=trained)
    assert report.metrics("adapter") == trained.report.metrics("adapter")
    assert report.metrics("base") == trained.report.metrics("base") != report.metrics("adapter")
    with didact.load(trained) as model:
        assert model.predict_rows(["Add 1 and 4."])[0]["prediction"] == model.chat("Add 1 and 4.")


@pytest.mark.ray
@pytest.mark.nightly
def test_a_search_starts_from_a_recipe_in_memory(tmp_path: Path) -> None:
    fields = {"space": {"adapter.r": {"choice": [2, 4]}}, "metric": "train/loss", "num_trials": 1, "scheduler": None}
    result = didact.sweep(name="ranks", recipe=tiny(tmp_path), **fields)
    assert [trial.status for trial in result.trials] == ["finished"]
    assert "ranks" in str(result)
    assert didact.sweep(name="ranks", recipe=tiny(tmp_path), **fields) == result
