"""A sweep whose trials are trained together on one base: the same trials, measurements and ends, by one worker."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from didact.files import read_jsonl
from didact.models import verify_adapter
from didact.runs import open_run
from didact.spec import SweepSpec, load_spec, to_json
from didact.tracking import effective_records, mlflow_run_id
from didact.tuning import SweepResult, run_sweep
from didact.tuning.journal import Journal
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

# Each trial starts a process that imports PyTorch; on a busy machine that takes its time.
pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]

STEPS = 8
SWEEP = {
    "name": "together",
    "recipe": "recipe.json",
    "overrides": {"training.evaluate_every": 2, "training.checkpoint_every": 4, "placement.num_workers": 1},
    "space": {
        "training.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "adapter.r": {"choice": [2, 4, 8]},
        "adapter.dropout": {"choice": [0.0, 0.2]},
    },
    "num_trials": 4,
    "max_concurrent": 3,
    "fused": True,
    "scheduler": {"grace_steps": 2},
    "confirm": {"top": 1, "seeds": 2, "steps": 4},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SweepResult]]:
    folder = tmp_path_factory.mktemp("fused")
    recipe = tiny_recipe(folder, training__steps=STEPS, training__global_batch_size=4, tracking__mlflow=True)
    (folder / "recipe.json").write_text(to_json(recipe))
    file = folder / "search.json"
    file.write_text(json.dumps(SWEEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "unused"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder / "runs", run_sweep(load_spec(SweepSpec, file), file, folder / "runs")


def test_every_trial_is_in_journal_results_and_mlflow(swept: tuple[Path, SweepResult]) -> None:
    runs, result = swept
    sweep = runs / "together"
    entries = Journal(sweep / "journal").entries()
    assert len(entries) == len(result.trials) == 4
    assert all(entry.ended and not entry.error for entry in entries)
    finished = [trial for trial in result.trials if trial.status == "finished"]
    assert finished and {trial.status for trial in result.trials} <= {"finished", "stopped early"}
    for trial in finished:
        assert [step for step, _ in trial.rungs] == [2, 4, 6, 8]
        assert verify_adapter(trial.run / "adapter").method == "lora"
    for trial in result.trials:
        assert [each["fused"] for each in read_jsonl(trial.run / "workers.jsonl")] == [True]
        assert trial.steps < STEPS or trial.status == "finished"
    client = MlflowClient(f"sqlite:///{runs}/mlflow.db")
    parent = mlflow_run_id(sweep)
    for trial in result.trials:
        run = client.get_run(str(mlflow_run_id(trial.run)))
        assert run.data.tags["mlflow.parentRunId"] == parent and run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [each.step for each in history] == list(range(1, trial.steps + 1))


def test_runs_with_fresh_seeds_are_trained_together_as_well(swept: tuple[Path, SweepResult]) -> None:
    confirmation = swept[1].confirmation
    assert confirmation is not None
    made = [run for arm in confirmation.arms for run in arm.runs]
    assert len(made) == 4 and not any(arm.errors for arm in confirmation.arms)
    for run in made:
        assert [each["fused"] for each in read_jsonl(run / "workers.jsonl")] == [True]
        assert verify_adapter(run / "adapter").method == "lora"


def test_a_trial_measures_what_it_would_alone(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    for trial in swept[1].trials:
        alone = run_loop(open_run(trial.run).spec(), tmp_path / trial.name)
        records = effective_records(trial.run / "steps.jsonl")
        for record, expected in zip(records, alone.losses, strict=False):
            assert record.metrics["train/loss"] == pytest.approx(expected, rel=1e-5), (trial.name, record.step)
