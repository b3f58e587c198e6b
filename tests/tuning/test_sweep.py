"""A sweep that is killed after its first trial and then continued: nothing is lost, nothing is done twice."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from didact.errors import RunError
from didact.files import read_jsonl
from didact.spec import SweepSpec, load_spec, to_json
from didact.spec.search.sweep import ConfirmSpec
from didact.tracking import mlflow_run_id
from didact.tuning import SweepResult, run_sweep
from didact.tuning.journal import Journal
from tests.fakes.recipes import tiny_recipe
from tests.fakes.sweeps import all_saved, sweep_command

# Each trial starts three processes that import PyTorch; on a busy machine that takes its time.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

STEPS = 8
SWEEP = {
    "name": "small",
    "recipe": "recipe.json",
    "overrides": {"training.evaluate_every": 2, "training.checkpoint_every": 2, "placement.num_workers": 1},
    "space": {
        "training.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "data.weights": {"simplex": ["first", "second"]},
    },
    "num_trials": 4,
    "max_concurrent": 2,
    "scheduler": {"grace_steps": 2},
    "register_best_as": "best-of-small",
}


@dataclass
class Continued:
    """What the killed process left, and what came of it."""

    runs: Path
    cache: Path
    left: dict[str, bytes]
    """Step records of trials that had ended when the process was killed."""
    result: SweepResult


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    source = {"path": str(folder / "sums.jsonl"), "held_out_rows": 4}
    sources = [{"name": "first", **source, "max_rows": 40}, {"name": "second", **source, "max_rows": 30}]
    recipe = tiny_recipe(
        folder,
        data__sources=sources,
        training__steps=STEPS,
        training__global_batch_size=4,
        tracking__mlflow=True,
        evaluation={"tasks": [{"task": "held_out"}]},
    )
    (folder / "recipe.json").write_text(to_json(recipe))
    (folder / "search.json").write_text(json.dumps(SWEEP))
    return folder / "search.json"


@pytest.fixture(scope="module")
def continued(search_file: Path) -> Iterator[Continued]:
    folder = search_file.parent
    runs, cache = folder / "runs", folder / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(cache))
        patch.setenv("DIDACT_RUNS", str(folder / "unused"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        left = run_until_a_trial_has_ended(search_file, runs)
        result = run_sweep(load_spec(SweepSpec, search_file), search_file, runs)
        yield Continued(runs, cache, left, result)


def run_until_a_trial_has_ended(search_file: Path, runs: Path) -> dict[str, bytes]:
    """Start the sweep in a process of its own, SIGKILL it, and return what ended trials have written."""
    log = (search_file.parent / "killed.log").open("w+")
    command, environment = sweep_command(search_file, runs)
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    journal = Journal(runs / "small" / "journal")
    try:
        while not (any(entry.ended for entry in journal.entries()) and all_saved(runs / "small")):
            try:
                code = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            log.seek(0)
            pytest.fail(f"the sweep ended by itself with {code}: {log.read()[-2000:]}")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()
    ended = [f"small-{entry.trial_id}" for entry in journal.entries() if entry.ended]
    return {name: (runs / "small" / "trials" / name / "steps.jsonl").read_bytes() for name in ended}


@pytest.mark.fault("T17")
def test_every_trial_comes_to_an_end(continued: Continued) -> None:
    result = continued.result
    assert [trial.status for trial in result.trials if trial.status == "failed"] == []
    ended = [trial for trial in result.trials if trial.status in ("finished", "stopped early")]
    assert len(ended) == SWEEP["num_trials"]
    assert all(trial.steps == STEPS for trial in ended if trial.status == "finished")
    assert result.best is not None
    assert result.best.status == "finished"
    finished = [trial.metric for trial in ended if trial.status == "finished" and trial.metric is not None]
    assert result.best.metric == min(finished)


@pytest.mark.fault("T17")
def test_ended_trials_are_not_run_again(continued: Continued) -> None:
    assert continued.left
    for name, before in continued.left.items():
        # Workers of a trial that was stopped early outlive the killed driver by a step or two, in the same attempt.
        after = (continued.runs / "small" / "trials" / name / "steps.jsonl").read_bytes()
        assert after.startswith(before)
        records = [json.loads(line) for line in after.splitlines()]
        assert [record["step"] for record in records] == list(range(1, len(records) + 1))
        assert {record["attempt"] for record in records} == {1}


def test_trials_sample_their_weights(continued: Continued) -> None:
    for trial in continued.result.trials:
        recipe = json.loads((trial.run / "recipe.json").read_text())
        weights = {source["name"]: source["weight"] for source in recipe["data"]["sources"]}
        assert sum(weights.values()) == pytest.approx(1)
        assert weights["first"] == trial.values["data.sources.first.weight"]
    assert len({trial.values["data.sources.first.weight"] for trial in continued.result.trials}) == SWEEP["num_trials"]


def test_trials_share_the_token_cache(continued: Continued) -> None:
    entries = [path for path in (continued.cache / "tokens").iterdir() if path.is_dir()]
    assert len(entries) == 2, "two sources"


@pytest.mark.fault("T17")
def test_mlflow_has_one_parent_with_a_finished_run_per_trial(continued: Continued) -> None:
    client = MlflowClient(f"sqlite:///{continued.runs}/mlflow.db")
    experiment = client.get_experiment_by_name("didact")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("small")
    assert parent.info.status == "FINISHED"
    assert set(runs) == {trial.name for trial in continued.result.trials}
    for trial in continued.result.trials:
        run = runs[trial.name]
        assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent.info.run_id)
        stopped = run.data.tags.get("didact.stopped_early") == "true"
        assert stopped == (trial.status == "stopped early")
        assert run.data.metrics["eval/loss"] == pytest.approx(trial.metric)


def test_best_trial_is_evaluated_and_registered(continued: Continued) -> None:
    outcome, best = continued.result.outcome, continued.result.best
    assert outcome is not None and best is not None
    assert outcome.run.path == best.run
    assert outcome.report is not None
    assert outcome.report.metrics("adapter")["eval/loss"] == pytest.approx(best.metric, rel=1e-4)
    assert outcome.version is not None
    assert (outcome.version.name, outcome.version.aliases) == ("best-of-small", ("candidate",))
    others = [trial.run for trial in continued.result.trials if trial.name != best.name]
    assert not any((run / "report.json").exists() for run in others), "trials are compared by the reported metric"


def test_results_are_written(continued: Continued) -> None:
    folder = continued.runs / "small"
    saved = json.loads((folder / "results.json").read_text())
    assert saved["best"] == continued.result.best.name
    assert (folder / "results.md").read_text() == continued.result.markdown()


def test_other_search_of_the_same_name_is_refused(continued: Continued, search_file: Path) -> None:
    other = load_spec(SweepSpec, search_file, ["num_trials=3"])
    with pytest.raises(RunError, match=r"other settings[\s\S]*sweep\.num_trials: was 4, now 3"):
        run_sweep(other, search_file, continued.runs)


@pytest.mark.nightly
def test_a_finished_sweep_is_confirmed_and_no_run_is_made_twice(continued: Continued, search_file: Path) -> None:
    asked = load_spec(SweepSpec, search_file, ["confirm.top=1", "confirm.seeds=1"])
    first = run_sweep(asked, search_file, continued.runs)
    folder = continued.runs / "small" / "confirm"
    made = {run.name: (run / "steps.jsonl").read_bytes() for run in folder.iterdir()}
    (uniform,) = folder.glob("*-uniform-*")
    losses = [record["loss_hex"] for record in read_jsonl(uniform / "steps.jsonl")]
    assert first.confirmation is not None and len(made) == 3, "a trial, the uniform and the proportional mixture"
    assert not first.confirmation.beats_all, "one seed says nothing of chance"
    shutil.rmtree(uniform)  # as if it had been killed before
    result = run_sweep(asked.model_copy(update={"confirm": ConfirmSpec(top=1)}), search_file, continued.runs)
    assert len(list(folder.iterdir())) == 6
    made_again = {name for name, steps in made.items() if (folder / name / "steps.jsonl").read_bytes() != steps}
    assert made_again == {uniform.name}
    assert [record["loss_hex"] for record in read_jsonl(uniform / "steps.jsonl")] == losses
    found = result.confirmation
    assert found is not None and found.seeds == (1, 2) and result.best is not None and result.best.name == found.winner
    assert all(arm.measured and len(arm.measured) == 2 for arm in found.arms)
    assert result.outcome is not None and result.outcome.run.path == found.arms[0].runs[0]
    client = MlflowClient(f"sqlite:///{continued.runs}/mlflow.db")
    parents = {
        run.data.tags.get("mlflow.parentRunId")
        for run in client.search_runs([client.get_experiment_by_name("didact").experiment_id])
        if run.info.run_name in made
    }
    assert parents == {result_run(continued.runs / "small")}


@pytest.mark.nightly
def test_a_finished_sweep_is_given_more_trials(continued: Continued, search_file: Path) -> None:
    before = {trial.name: (trial.run / "steps.jsonl").read_bytes() for trial in continued.result.trials}
    larger = load_spec(SweepSpec, search_file, ["num_trials=5"])
    result = run_sweep(larger, search_file, continued.runs)
    assert len(result.trials) == 5 and {trial.status for trial in result.trials} <= {"finished", "stopped early"}
    after = {trial.name: (trial.run / "steps.jsonl").read_bytes() for trial in result.trials}
    assert {name: after[name] for name in before} == before
    assert len({trial.values["training.learning_rate"] for trial in result.trials}) == 5
    run = MlflowClient(f"sqlite:///{continued.runs}/mlflow.db").get_run(result_run(continued.runs / "small"))
    assert (run.info.status, run.data.tags["didact.grown_from"]) == ("FINISHED", "[4]")
    assert run_sweep(larger, search_file, continued.runs).trials == result.trials


def result_run(folder: Path) -> str:
    run_id = mlflow_run_id(folder)
    assert run_id is not None
    return run_id
