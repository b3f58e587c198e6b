"""The worker that trains runs together, asked from threads as their processes ask it; without Ray."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from didact.capacity import WorkerResources
from didact.cluster.fused.worker import FusedWorker, Road
from didact.errors import ModelError, RunError, SpecError
from didact.files import read_jsonl
from didact.models import base_fingerprint, verify_adapter
from didact.preparation import prepare_run, run_here
from didact.runs import Run, start_run
from didact.tracking import effective_records
from didact.training import TrainResult
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

RATES = {"slow": 1e-3, "fast": 1e-2}


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Run]:
    """Prepared runs of six steps, measured and saved every second one."""
    return {name: prepared(tmp_path, name, training__learning_rate=rate) for name, rate in RATES.items()}


def prepared(folder: Path, name: str, **changes: Any) -> Run:
    every = {"training__steps": 6, "training__evaluate_every": 2, "training__checkpoint_every": 2}
    spec = tiny_recipe(folder, name=name, placement__num_workers=1, **{**every, **changes})
    run = start_run(spec, folder / "runs")
    prepare_run(run, spec, run_here)
    return run


def worker(together: int = 1) -> FusedWorker:
    return FusedWorker(WorkerResources(1, use_gpu=False), together)


def steps(run: Run) -> list[int]:
    return [record["step"] for record in read_jsonl(run.steps)] if run.steps.exists() else []


def measured(group: FusedWorker, name: str) -> list[int]:
    """Ask until the run has ended."""
    found = []
    while isinstance(told := group.next(name), dict):
        assert told["eval/loss"] > 0
        found.append(told["step"])
    assert isinstance(told, TrainResult) and told.steps == 6
    return found


def test_runs_begin_together_and_wait_for_whoever_decides(runs: dict[str, Run]) -> None:
    group = worker(together=2)
    group.join(str(runs["slow"].path), 1, False)
    assert steps(runs["slow"]) == []
    group.join(str(runs["fast"].path), 1, False)
    first = {name: group.next(name) for name in runs}
    assert [told["step"] for told in first.values()] == [2, 2]
    assert [steps(run) for run in runs.values()] == [[1, 2], [1, 2]]
    group.leave("fast")
    assert measured(group, "slow") == [4, 6]
    assert steps(runs["fast"]) == [1, 2] and not runs["fast"].adapter.exists()
    with pytest.raises(RunError, match="'fast' has left"):
        group.next("fast")


def test_what_it_leaves_is_that_of_an_ordinary_run(runs: dict[str, Run], tmp_path: Path) -> None:
    group = worker(together=2)
    for run in runs.values():
        group.join(str(run.path), 1, False)
    with ThreadPoolExecutor(2) as processes:
        assert list(processes.map(lambda name: measured(group, name), runs)) == [[2, 4, 6], [2, 4, 6]]
    for name, run in runs.items():
        alone = run_loop(run.spec(), tmp_path / "alone" / name)
        records = effective_records(run.steps)
        assert [each.step for each in records] == [1, 2, 3, 4, 5, 6]
        for one, other in zip(records, alone.losses, strict=True):
            assert one.metrics["train/loss"] == pytest.approx(other, rel=1e-5)
        facts = verify_adapter(run.adapter)
        assert (facts.base, facts.method, facts.base_fingerprint) == (
            run.spec().model.base,
            "lora",
            base_fingerprint(run.spec().model),
        )
        assert [each["fused"] for each in read_jsonl(run.workers)] == [True]


def test_a_run_goes_on_from_its_checkpoint_when_its_process_comes_again(runs: dict[str, Run]) -> None:
    group, run = worker(), runs["slow"]
    group.join(str(run.path), 1, False)
    assert group.next("slow")["step"] == 2
    group.join(str(run.path), 2, False)
    assert measured(group, "slow") == [4, 6]
    assert [(each["attempt"], each["step"]) for each in read_jsonl(run.steps)] == [
        *((1, step) for step in (1, 2)),
        *((2, step) for step in (3, 4, 5, 6)),
    ]


def test_one_that_cannot_take_part_says_why_and_stops_nobody(runs: dict[str, Run], tmp_path: Path) -> None:
    odd = prepared(tmp_path, "odd", adapter__dora=True)
    head = prepared(tmp_path, "head", adapter__target_modules=["lm_head"])
    group = worker(together=4)
    group.join(str(runs["slow"].path), 1, False)
    with pytest.raises(SpecError, match=r"odd cannot be fused with other trials:\n  - adapter\.dora"):
        group.join(str(odd.path), 1, False)
    with pytest.raises(ModelError, match=r"adapter\.target_modules names lm_head"):
        group.join(str(head.path), 1, False)
    group.leave("fast")  # ended before it came
    with pytest.raises(RunError, match="'fast' was ended before it had begun"):
        group.join(str(runs["fast"].path), 1, False)
    assert measured(group, "slow") == [2, 4, 6]


def test_a_run_waits_after_each_measurement_until_whoever_asked_asks_again(runs: dict[str, Run]) -> None:
    group, run = worker(), runs["slow"]
    road = Road(group, group.changed, is_asked=True)
    with ThreadPoolExecutor(1) as thread:
        trained = thread.submit(road, run, allow_fresh=False)
        for step in (2, 4, 6):
            told = road.decisions.ask()
            assert told is not None and (told["step"], told["num_steps"]) == (step, 6)
            assert steps(run) == [*range(1, step + 1)]
        trained.add_done_callback(lambda _: road.decisions.end())
        assert road.decisions.ask() is None
        assert trained.result().steps == 6 and verify_adapter(run.adapter).method == "lora"


def test_a_run_that_is_ended_says_how_far_it_came(runs: dict[str, Run]) -> None:
    group, run = worker(), runs["slow"]
    with ThreadPoolExecutor(1) as thread:
        road = Road(group, group.changed, is_asked=True)
        trained = thread.submit(road, run, allow_fresh=False)
        assert road.decisions.ask() is not None
        group.leave("slow")  # nobody asks any more
        result = trained.result(timeout=60)
    assert result.steps == 2 and steps(run) == [1, 2] and not run.adapter.exists()
    assert result.tokens > 0 and result.loss == effective_records(run.steps)[-1].metrics["train/loss"]
    group.leave("fast")
    assert Road(group, group.changed, is_asked=False)(runs["fast"], allow_fresh=False).steps == 0
