"""What a study would take on the machines that are there, where nothing is foretold."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from didact.capacity import Cluster
from didact.preparation import Plan, prepare_data
from didact.spec import StudySpec, load_spec
from didact.studies import load_study
from didact.studies.plan import StudyPlan, plan_study
from tests.fakes.recipes import tiny_recipe


def planned(folder: Path, factors: dict[str, Any]) -> StudyPlan:
    recipe = tiny_recipe(folder, evaluation=None).model_dump(mode="json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {"name": "made", "recipe": "recipe.yaml", "factors": factors, "evaluation": {}}
    (folder / "study.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return plan_study(load_study(load_spec(StudySpec, folder / "study.yaml"), folder / "study.yaml"), folder / "runs")


def test_a_base_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    plan = planned(tmp_path, {"steps": {"training.steps": [2, 3]}})
    assert all(not each.too_large and not each.lacks and each.gib for each in plan.cells)
    assert not any("too large" in line for line in plan.lines())
    spec = plan.cells[0].cell.spec
    small = Cluster(({"CPU": 8, "memory": 1000.0 * 2**10},), ())
    told = Plan.of(spec, prepare_data(spec), cluster=small).too_large()
    assert told is not None and told.endswith(" GiB, a node there has 0.0 GiB")
    assert Plan.of(spec, prepare_data(spec), cluster=Cluster(({"CPU": 8},), ())).too_large() is None, "nobody says"
    plan = replace(plan, cells=(plan.cells[0], replace(plan.cells[1], too_large=told)))
    assert f"too large  {spec.model.base} {told}" in list(plan.lines())


def test_workers_that_there_is_no_room_for_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    plan = planned(tmp_path, {"workers": {"few": {}, "many": {"placement.cpus_per_worker": 5000}}})
    (told,) = [line for line in plan.lines() if line.startswith("needs ")]
    assert "5000" in told and "set RAY_ADDRESS to a cluster with more" in told


def test_what_keeps_a_cell_from_being_planned_is_told_beside_its_measured_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    factors = {"data": {"there": {}, "gone": {"data.sources.sums.path": str(tmp_path / "gone.jsonl")}}}
    plan = planned(tmp_path, factors)
    assert "gone.jsonl" in plan.cells[1].unknown
    beside = replace(plan.cells[1], is_measured=True)
    console = Console(width=400, file=io.StringIO())
    console.print(replace(plan, cells=(plan.cells[0], beside, plan.cells[1])))
    (line,) = [each for each in console.file.getvalue().splitlines() if "1 of 2 measured" in each]
    assert "1 of 2 measured; " in line and "gone.jsonl" in line


def test_budgets_are_told_in_steps_and_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    (line,) = [each for each in planned(tmp_path, {"steps": {"training.steps": [2, 4]}}).lines() if "budget" in each]
    assert line.startswith("budget     budgets differ: 2, 4 optimizer steps a cell, ") and line.endswith(" tokens")
