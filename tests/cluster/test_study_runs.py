"""A study on Ray: cells are run once, one that fails costs itself, and added cells run alone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from didact.errors import RunError
from didact.spec import StudySpec, load_spec
from didact.studies import Study, load_study, run_study
from didact.studies.reporting import table_values, write_report
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


RUN = """
import sys
from pathlib import Path
from didact.spec import StudySpec, load_spec
from didact.studies import load_study, run_study
file, runs = map(Path, sys.argv[1:])
run_study(load_study(load_spec(StudySpec, file), file), runs)
"""


def study_of(folder: Path, rates: dict[str, float], **changes: object) -> Study:
    recipe = tiny_recipe(folder, training__steps=4, placement__num_workers=1, training__max_grad_norm=1e30)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    levels = {name: {"training.learning_rate": rate} for name, rate in rates.items()}
    values = {"name": "rates", "recipe": "recipe.yaml", "factors": {"rate": levels}, "evaluation": {}, **changes}
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


def test_a_killed_study_ends_with_the_tables_of_an_undisturbed_one(tmp_path: Path) -> None:
    study = study_of(tmp_path, {"usual": 1e-2, "slow": 1e-3, "slower": 1e-4}, max_concurrent=1)
    whole = run_study(study, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    command = [sys.executable, "-c", RUN, str(tmp_path / "study.yaml"), str(tmp_path / "killed")]
    with (tmp_path / "killed.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        first = tmp_path / "killed" / "rates" / "cells" / "rates-usual-s0" / "report.json"
        while not first.is_file():
            assert process.poll() is None, (tmp_path / "killed.log").read_text()
            time.sleep(0.1)
        process.kill()
        process.wait()
    written = first.stat().st_mtime_ns
    killed = run_study(study, tmp_path / "killed")
    assert first.stat().st_mtime_ns == written, "a cell that has its report was run again"
    assert [cell.status for cell in killed.cells] == ["finished"] * 3
    assert table_values(killed) == table_values(whole) != ""
