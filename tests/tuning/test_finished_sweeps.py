"""What is done with finished sweeps: the winning recipe, and a start for the next one."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import RunError, SpecError
from didact.runs import start_run
from didact.spec import FinetuneSpec, SweepSpec, load_spec, validate
from didact.tracking import load_state, open_run
from didact.tracking.mlflow_tracker import connect
from didact.tuning import export_recipe
from didact.tuning.objective import Objective
from didact.tuning.records import TrialResult
from didact.tuning.results import result_of
from didact.tuning.spaces import Space
from didact.tuning.sweep import _close_runs
from didact.tuning.warm import earlier_trials
from tests.fakes.recipes import tiny_recipe

SOURCES = [{"name": "a", "path": "/x/a.jsonl", "held_out_rows": 4}, {"name": "b", "path": "/x/b.jsonl"}]
RECIPE = {"name": "r", "data": {"sources": SOURCES}, "training": {"steps": 5}, "adapter": {"r": 4, "dora": True}}
SPACE = {"adapter.method": {"choice": ["lora", "ia3"]}, "training.learning_rate": {"loguniform": [1e-4, 1e-2]}}


def sweep_spec(**changes: Any) -> SweepSpec:
    found: SweepSpec = validate(SweepSpec, {"name": "old", "recipe": "r.yaml", "space": SPACE, **changes}, "s.yaml")
    return found


def finished(runs: Path) -> list[TrialResult]:
    """A sweep of three trials, of which the second is the best and the third was stopped."""
    spec = sweep_spec()
    draws = [("lora", 1e-3, 2.0, "finished"), ("ia3", 2e-3, 1.0, "finished"), ("lora", 3e-3, 0.5, "stopped early")]
    trials = [
        TrialResult(
            f"old-{n}", {"adapter.method": method, "training.learning_rate": rate}, loss, 5, status,  # type: ignore[arg-type]
            runs / "old" / str(n), index=n, metrics={"eval/loss": loss},
        )
        for n, (method, rate, loss, status) in enumerate(draws)
    ]  # fmt: skip
    result_of("old", Objective.of(spec), trials).save(runs / "old")
    recipe = validate(FinetuneSpec, RECIPE, "r").model_dump(mode="json")
    (runs / "old" / "sweep.json").write_text(json.dumps({"sweep": spec.model_dump(mode="json"), "recipe": recipe}))
    return trials


def test_the_winning_recipe_is_the_sweeps_with_what_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path)
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path))
    file = tmp_path / "best.yaml"
    done = CliRunner().invoke(app, ["sweep", "export", "old", str(file)])
    assert done.exit_code == 0, done.output
    spec = load_spec(FinetuneSpec, file)
    assert (spec.name, spec.adapter.method, spec.training.learning_rate) == ("old-best", "ia3", 2e-3)
    assert spec.data.sources[0].path == "/x/a.jsonl"
    assert file.read_text().startswith("# Trial old-1 of sweep old: eval/loss 1 after 5 steps.\n")
    assert "dora" not in file.read_text() and "tracking" not in yaml.safe_load(file.read_text())


def test_another_trial_can_be_asked_for(tmp_path: Path) -> None:
    finished(tmp_path)
    spec = export_recipe("old", tmp_path, tmp_path / "x.yaml", "old-2")
    assert (spec.name, spec.adapter.method, spec.training.learning_rate) == ("old-2-again", "lora", 3e-3)
    with pytest.raises(RunError, match=r"x\.yaml exists"):
        export_recipe("old", tmp_path, tmp_path / "x.yaml")
    with pytest.raises(RunError, match=r"no trial 'old-9'; expected one of old-1, old-0, old-2"):
        export_recipe("old", tmp_path, tmp_path / "y.yaml", "old-9")
    with pytest.raises(RunError, match="new holds no results of a sweep"):
        export_recipe("new", tmp_path, tmp_path / "y.yaml")


def test_a_search_learns_from_finished_trials_that_it_could_have_drawn(tmp_path: Path) -> None:
    finished(tmp_path)
    narrower = {**SPACE, "adapter.method": {"choice": ["ia3", "oft"]}}
    spec = sweep_spec(name="new", space=narrower)
    found = earlier_trials(["old"], tmp_path, Space(spec.space), Objective.of(spec), "s.yaml")
    assert [(each.losses, each.draw.values["adapter.method"]) for each in found] == [((1.0,), "ia3")]
    other = sweep_spec(space={"adapter.r": {"choice": [1]}})
    with pytest.raises(SpecError, match=r"s\.yaml: warm_start\.0: none of the 3 trials of sweep 'old'"):
        earlier_trials(["old"], tmp_path, Space(other.space), Objective.of(other), "s.yaml")
    with pytest.raises(SpecError, match=r"warm_start\.0: found 'older', but there is no"):
        earlier_trials(["older"], tmp_path, Space(spec.space), Objective.of(spec), "s.yaml")


def test_a_trial_whose_process_was_killed_after_its_last_step_is_finished_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path))
    spec = tiny_recipe(tmp_path, name="s-1", tracking__mlflow=True)
    run = start_run(spec, tmp_path / "trials")
    known = {"params": {}, "tags": {}, "inputs": (), "resolved_spec": run.recipe.read_text(encoding="utf-8")}
    run_id = open_run(run.path, run.name, spec.tracking, **known)
    state = load_state(run.path)
    assert state is not None and state.status == "RUNNING" and run_id is not None
    trial = TrialResult("s-1", {}, 1.0, 10, "finished", run.path)
    plan, result = SimpleNamespace(parent_run_id=None), SimpleNamespace(trials=[trial])
    for _ in range(2):  # the second time there is nothing to say
        _close_runs(plan, result)  # type: ignore[arg-type]
        state = load_state(run.path)
        assert state is not None and state.status == "FINISHED"
    ended = connect(state.uri).get_run(run_id).info
    assert ended.status == "FINISHED" and ended.end_time is not None
