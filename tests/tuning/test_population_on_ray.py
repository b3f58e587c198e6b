"""A whole population on Ray, and the recipe of its best trial trained anew."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from didact.cluster import finetune
from didact.runs import descents, open_run
from didact.spec import SweepSpec, load_spec, to_json
from didact.tracking import effective_records
from didact.tuning import SweepResult, export_recipe, run_sweep
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]
STEPS, TRIALS = 4, 3
SWEEP: dict[str, Any] = {
    "name": "flock",
    "recipe": "recipe.json",
    "overrides": {"placement.num_workers": 1},
    "space": {
        "training.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "adapter.dropout": {"choice": [0.0, 0.1, 0.3]},
        "data.weights": {"simplex": ["first", "second"]},
    },
    "num_trials": TRIALS,
    "scheduler": {"rule": "population", "interval_steps": 2},
}


@dataclass
class Flock:
    """A population that has come to its end."""

    file: Path
    runs: Path
    result: SweepResult


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    folder = tmp_path_factory.mktemp("flock")
    source = {"path": str(folder / "sums.jsonl"), "held_out_rows": 4}
    sources = [{"name": "first", **source, "max_rows": 40}, {"name": "second", **source, "max_rows": 30}]
    training = {"training__steps": STEPS, "training__global_batch_size": 4, "training__evaluate_every": 2}
    (folder / "recipe.json").write_text(to_json(tiny_recipe(folder, data__sources=sources, **training)))
    (folder / "search.json").write_text(json.dumps(SWEEP))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        file = folder / "search.json"
        yield Flock(file, folder / "runs", run_sweep(load_spec(SweepSpec, file), file, folder / "runs"))


def lineage(run: Path) -> list[tuple[int, str, tuple[str, ...]]]:
    return [(each.step, each.metrics["train/loss"].hex(), tuple(each.sample_ids)) for each in effective_records(run)]


def test_copies_go_on_in_place_of_the_worst(flock: Flock) -> None:
    trials = {trial.name: trial for trial in flock.result.trials}
    assert len(trials) == TRIALS + 1, "one copy after each interval but the last"
    assert [trial.status for trial in flock.result.trials].count("finished") == TRIALS
    copies = [trial for trial in trials.values() if trial.origin.startswith("copy of ")]
    assert len(copies) == 1 and descents(open_run(copies[0].run))
    decided = json.loads((flock.runs / "flock" / "population.json").read_text())
    for step, record in decided.items():
        (move,) = record["moves"]
        worst = max(record["scores"], key=record["scores"].__getitem__)
        assert move["loser"] == worst and trials[f"flock-{worst}"].steps == int(step)
        assert record["scores"][move["donor"]] == min(record["scores"].values())


def test_the_exported_schedule_trains_the_same_anew(flock: Flock, tmp_path: Path) -> None:
    (trial,) = [trial for trial in flock.result.trials if trial.origin.startswith("copy of ")]
    spec = export_recipe("flock", flock.runs, tmp_path / "out.yaml", trial.name)
    assert len(spec.training.changes) == 1 and len(spec.data.curriculum) == 2
    again = spec.model_copy(update={"evaluation": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(flock.file.parent / "cache"))
        made = finetune(again, tmp_path / "runs").run
    assert lineage(made.steps) == lineage(trial.run / "steps.jsonl")


def test_the_same_command_does_nothing_more(flock: Flock) -> None:
    before = {file: file.read_bytes() for file in flock.runs.glob("flock/trials/*/steps.jsonl")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(flock.file.parent / "cache"))
        again = run_sweep(load_spec(SweepSpec, flock.file), flock.file, flock.runs)
    assert [trial.name for trial in again.trials] == [trial.name for trial in flock.result.trials]
    assert {file: file.read_bytes() for file in before} == before
