"""A study on Ray: cells are run once, one that fails costs itself, and added cells run alone."""

import json
from pathlib import Path

import pytest
import yaml

from didact.errors import RunError
from didact.spec import StudySpec, load_spec
from didact.studies import Study, load_study, run_study
from didact.studies.reporting import write_report
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


def study_of(folder: Path, rates: dict[str, float]) -> Study:
    recipe = tiny_recipe(folder, training__steps=4, placement__num_workers=1, training__max_grad_norm=1e30)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    levels = {name: {"training.learning_rate": rate} for name, rate in rates.items()}
    values = {"name": "rates", "recipe": "recipe.yaml", "factors": {"rate": levels}, "evaluation": {}}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_study(load_spec(StudySpec, file), file)


def test_cells_are_run_once_and_a_failed_one_costs_itself(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    study = study_of(tmp_path, {"usual": 1e-2, "bursts": 1e30})
    first = run_study(study, runs)
    assert [cell.status for cell in first.cells] == ["finished", "failed"]
    assert "TrainingDiverged" in str(first.cells[1].error)
    report = first.cells[0].run / "report.json"
    written = report.stat().st_mtime_ns
    grown = run_study(study_of(tmp_path, {"usual": 1e-2, "bursts": 1e30, "slow": 1e-4}), runs)
    assert [cell.status for cell in grown.cells] == ["finished", "failed", "finished"]
    assert report.stat().st_mtime_ns == written, "a cell that has its report was run again"
    assert grown.metrics() == ("eval/loss",)
    page, *_ = write_report(grown)
    assert "rates-slow-s0" in page.read_text() and json.loads((runs / "rates" / "study.json").read_text())["errors"]
    with pytest.raises(RunError, match=r"factors.rate.usual: was .*0.01.*, now .*0.02"):
        run_study(study_of(tmp_path, {"usual": 2e-2, "slow": 1e-4}), runs)
