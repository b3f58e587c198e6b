"""A search whose workers and then whose driver are killed ends, by the same command, as one that nothing befell."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from didact.runs import Run
from didact.spec import to_json
from didact.tracking import mlflow_run_id
from didact.tuning import SweepResult, TrialResult, read_results
from didact.tuning.journal import Journal
from tests.fakes.lineage import executed, interruptions, lineage, same_weights
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sweeps import all_saved, sweep_command

LIMIT_SECONDS = 600  # of each of three commands, which start Ray and eight trials
pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(3 * LIMIT_SECONDS), pytest.mark.fault("T17")]

STEPS = 6
SWEEP = {
    "name": "killed",
    "recipe": "recipe.json",
    "space": {"training.learning_rate": {"loguniform": [1e-4, 1e-1]}, "adapter.dropout": {"uniform": [0.0, 0.3]}},
    "num_trials": 8,
    "max_concurrent": 2,
    "scheduler": None,  # so that no trial's end depends on which of two was quicker
}
FIRST, LAST = 1, 5
"""Draws whose workers are killed: one that its own driver brings back, and one whose driver is killed as well."""
FAULTS = {FIRST: "step:kill@3", LAST: "update:kill@5"}


@dataclass(frozen=True)
class Swept:
    """What came of the killed search, and what one of the same name found that was left alone."""

    killed: SweepResult
    unbroken: SweepResult
    ended: dict[str, tuple[bytes, str | None]]
    """Step records and MLflow runs of the trials that had ended when the driver was killed."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    folder = tmp_path_factory.mktemp("killed")
    recipe = tiny_recipe(
        folder,
        training__steps=STEPS,
        training__global_batch_size=4,
        training__checkpoint_every=2,
        training__evaluate_every=2,
        placement__num_workers=1,
        tracking__mlflow=True,
        evaluation=None,
    )
    search_file = folder / "search.json"
    (folder / "recipe.json").write_text(to_json(recipe))
    search_file.write_text(json.dumps(SWEEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "unused"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ended = kill_the_driver(search_file, folder / "runs")
        sweep(search_file, folder / "runs", FAULTS)
        sweep(search_file, folder / "unbroken", {})
    found = (read_results(folder / place / "killed") for place in ("runs", "unbroken"))
    return Swept(*found, ended)


def sweep(search_file: Path, runs: Path, faults: dict[int, str]) -> None:
    words, environment = sweep_command(search_file, runs, faults)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]


def kill_the_driver(search_file: Path, runs: Path) -> dict[str, tuple[bytes, str | None]]:
    """SIGKILL it once the second fault has struck, before that trial's workers are back; what had ended by then."""
    words, environment = sweep_command(search_file, runs, FAULTS)
    folder, until = runs / "killed", time.monotonic() + LIMIT_SECONDS
    with (search_file.parent / "driver.log").open("w+") as log:
        driver = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            while len(list(folder.glob("trials/*/failpoint-1-struck"))) < len(FAULTS) or not all_saved(folder):
                assert driver.poll() is None, (search_file.parent / "driver.log").read_text()[-4000:]
                assert time.monotonic() < until, "the faults did not strike"
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.wait()
    ended = [
        folder / "trials" / f"killed-{each.trial_id}" for each in Journal(folder / "journal").entries() if each.ended
    ]
    return {path.name: ((path / "steps.jsonl").read_bytes(), mlflow_run_id(path)) for path in ended}


def by_draw(result: SweepResult) -> dict[int, TrialResult]:
    assert len(result.trials) == SWEEP["num_trials"] and {each.status for each in result.trials} == {"finished"}
    return {each.index: each for each in result.trials}


def test_every_trial_ends_as_in_the_search_that_was_left_alone(swept: Swept) -> None:
    killed, unbroken = by_draw(swept.killed), by_draw(swept.unbroken)
    assert killed.keys() == unbroken.keys() == set(range(8))
    for index, trial in killed.items():
        beside, runs = unbroken[index], (Run(trial.run), Run(unbroken[index].run))
        assert trial.values == beside.values
        assert trial.rungs == beside.rungs and [step for step, _ in trial.rungs] == [2, 4, 6], "held-out losses"
        assert lineage(runs[0]) == lineage(runs[1]) and same_weights(*runs)
    assert swept.killed.best is not None and swept.unbroken.best is not None
    assert swept.killed.best.index == swept.unbroken.best.index


def test_workers_were_killed_and_ended_trials_are_not_run_again(swept: Swept) -> None:
    trials = by_draw(swept.killed)
    first, last = (Run(trials[index].run) for index in (FIRST, LAST))
    assert first.path.name in swept.ended and last.path.name not in swept.ended
    assert interruptions(first) == ["infrastructure"] and executed(first) == [1, 2, 3, *range(3, STEPS + 1)]
    assert (last.path / "failpoint-1-struck").exists() and executed(last) == list(range(1, STEPS + 1))
    for name, (steps, _) in swept.ended.items():
        assert (first.path.parent / name / "steps.jsonl").read_bytes() == steps


def test_each_trial_is_one_mlflow_run_below_one_parent(swept: Swept) -> None:
    folder = Run(swept.killed.trials[0].run).path.parent.parent
    client = MlflowClient(f"sqlite:///{folder.parent}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("didact").experiment_id])
    assert len(found) == SWEEP["num_trials"] + 1
    assert {run.info.status for run in found} == {"FINISHED"}
    runs = {run.info.run_name: run for run in found}
    parent = runs.pop("killed").info.run_id
    assert runs.keys() == {trial.name for trial in swept.killed.trials}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}
    for name, (_, run_id) in swept.ended.items():
        assert runs[name].info.run_id == run_id
