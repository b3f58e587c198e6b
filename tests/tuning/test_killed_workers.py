"""A search whose workers and then whose driver are killed ends, by the same command, as one that nothing befell."""

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from didact.runs import Run, open_run
from didact.spec import SweepSpec, load_spec, to_json
from didact.tracking import mlflow_run_id
from didact.tuning import SweepResult, TrialResult, load_search, read_results
from didact.tuning.journal import Journal
from didact.tuning.searchers import build_proposer
from tests.fakes.lineage import executed, interruptions, is_as_alone
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sweeps import all_saved, sweep_command

LIMIT_SECONDS = 900  # of each of two commands, which start Ray and eight trials
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
    """What came of the killed search."""

    search_file: Path
    result: SweepResult
    ended: dict[str, tuple[bytes, str | None]]
    """Step records and MLflow runs of the trials that had ended when the driver was killed."""

    @property
    def trials(self) -> dict[int, TrialResult]:
        """By number of the draw."""
        return {each.index: each for each in self.result.trials}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
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
        words, environment = sweep_command(search_file, folder / "runs", FAULTS)
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        assert done.returncode == 0, done.stderr[-4000:]
        yield Swept(search_file, read_results(folder / "runs" / "killed"), ended)


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


def test_every_trial_ends_as_one_that_was_left_alone(swept: Swept, tmp_path: Path) -> None:
    """Its search undisturbed: each draw of the same space, trained in this process from its first step to its last."""
    search = load_search(load_spec(SweepSpec, swept.search_file), swept.search_file)
    proposer, losses = build_proposer(search.sweep, search.space, search.objective), dict[int, float]()
    assert sorted(swept.trials) == list(range(8)) and len(swept.result.trials) == 8
    for index, trial in swept.trials.items():
        assert trial.status == "finished" and trial.values == proposer.propose(index, []).values
        alone = run_loop(open_run(trial.run).spec(), tmp_path / str(index), measured=True)
        assert is_as_alone(Run(trial.run), alone) and len(alone.lineage) == STEPS
        measured = [(each.step, each.metrics["eval/loss"]) for each in alone.reports if "eval/loss" in each.metrics]
        assert list(trial.rungs) == measured and [step for step, _ in measured] == [2, 4, 6]
        losses[index] = measured[-1][1]
    assert swept.result.best is not None and swept.result.best.index == min(losses, key=lambda index: losses[index])


def test_workers_were_killed_and_ended_trials_are_not_run_again(swept: Swept) -> None:
    first, last = (Run(swept.trials[index].run) for index in (FIRST, LAST))
    assert first.path.name in swept.ended and last.path.name not in swept.ended
    assert interruptions(first) == ["infrastructure"] and executed(first) == [1, 2, 3, *range(3, STEPS + 1)]
    assert (last.path / "failpoint-1-struck").exists() and executed(last) == list(range(1, STEPS + 1))
    for name, (steps, _) in swept.ended.items():
        assert (first.path.parent / name / "steps.jsonl").read_bytes() == steps


def test_each_trial_is_one_mlflow_run_below_one_parent(swept: Swept) -> None:
    client = MlflowClient(f"sqlite:///{swept.search_file.parent}/runs/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("didact").experiment_id])
    assert len(found) == SWEEP["num_trials"] + 1
    assert {run.info.status for run in found} == {"FINISHED"}
    runs = {run.info.run_name: run for run in found}
    parent = runs.pop("killed").info.run_id
    assert runs.keys() == {trial.name for trial in swept.result.trials}
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}
    for name, (_, run_id) in swept.ended.items():
        assert runs[name].info.run_id == run_id
