"""A worker that trains run after run: each learns what it learns alone, whatever became of the one before it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from didact.capacity import WorkerResources
from didact.cluster import KeptWorker, can_be_kept, finetune, finetune_each
from didact.cluster.kept.decisions import Decisions, RunLeft
from didact.cluster.kept.worker import train_next
from didact.cluster.several import can_share_workers
from didact.errors import OutOfMemory, WorkersLost
from didact.files import write_text
from didact.preparation import prepare_run, run_here
from didact.runs import Run, start_run
from didact.spec import FinetuneSpec
from tests.fakes.lineage import executed, interruptions, is_as_alone
from tests.fakes.loops import Loop, run_loop
from tests.fakes.recipes import tiny_recipe

STEPS = 6
ONE_CPU = WorkerResources(1, use_gpu=False)


def recipe(folder: Path, name: str, rate: float = 1e-2, *faults: str, **changes: Any) -> FinetuneSpec:
    if faults:
        write_text(folder / "runs" / name / "failpoint", "\n".join(faults) + "\n")
    every = {"training__steps": STEPS, "training__evaluate_every": 2, "training__checkpoint_every": 2}
    fixed = {"placement__num_workers": 1, "training__learning_rate": rate, "evaluation": None}
    return tiny_recipe(folder, name=name, **{**every, **fixed, **changes})


def alone(run: Run, folder: Path) -> Loop:
    return run_loop(run.spec(), folder / "alone" / run.name, measured=True)


def test_a_measurement_waits_until_it_is_decided_upon() -> None:
    decisions, done = Decisions(), []
    with ThreadPoolExecutor(1) as thread:

        def measure() -> None:
            for step in (1, 2):
                decisions.tell({"step": step})
                done.append(step)
            decisions.end()

        trained = thread.submit(measure)
        for step in (1, 2):
            assert decisions.ask() == {"step": step} and done == [*range(1, step)]
        assert decisions.ask() is None
        trained.result(60)
    assert done == [1, 2]


@pytest.mark.parametrize("ends", ["end", "is_ended"])
def test_nobody_waits_for_who_is_gone(ends: str) -> None:
    changed, gone = threading.Condition(), threading.Event()
    decisions = Decisions(changed)
    with ThreadPoolExecutor(1) as thread:
        told = thread.submit(decisions.tell, {"step": 1}, is_ended=gone.is_set)
        assert decisions.ask() == {"step": 1} and not told.done()
        if ends == "end":
            decisions.end()
        else:
            with changed:
                gone.set()
                changed.notify_all()
        told.result(60)


def test_one_process_trains_runs_as_each_is_trained_alone(tmp_path: Path) -> None:
    """One is left after its first measurement; the others differ in rank, dropout, rate and method."""
    specs = {
        "first": recipe(tmp_path, "first"),
        "left": recipe(tmp_path, "left", 1e-3),
        "second": recipe(tmp_path, "second", 3e-3, adapter__r=8, adapter__dropout=0.3),
        "third": recipe(tmp_path, "third", adapter={"method": "ia3"}),
    }
    told: dict[str, list[int]] = {name: [] for name in specs}
    for name, spec in specs.items():
        run, decisions = start_run(spec, tmp_path / "runs"), Decisions()
        prepare_run(run, spec, run_here)
        words = {"run": str(run.path), "attempt": 1, "micro_batch_size": 2, "allow_fresh": False, "use_gpu": False}
        with ThreadPoolExecutor(1) as thread:
            trained = thread.submit(train_next, words, decisions)
            trained.add_done_callback(lambda _, decisions=decisions: decisions.end())
            while (measured := decisions.ask()) is not None:
                told[name].append(measured["step"])
                if name == "left":
                    decisions.end()
            if name == "left":
                with pytest.raises(RunLeft, match="was ended where it is"):
                    trained.result()
                continue
            assert trained.result()["result"]["steps"] == STEPS
        assert is_as_alone(run, alone(run, tmp_path))
    assert told == {"first": [2, 4, 6], "left": [2], "second": [2, 4, 6], "third": [2, 4, 6]}
    assert executed(Run(tmp_path / "runs" / "left")) == [1, 2]


def test_runs_of_several_workers_or_cut_weights_have_workers_of_their_own(tmp_path: Path) -> None:
    assert can_be_kept(recipe(tmp_path, "alone"))
    assert not can_be_kept(recipe(tmp_path, "two", placement__num_workers=2))
    assert not can_be_kept(recipe(tmp_path, "elastic", placement__num_workers={"min": 1, "max": 2}))
    assert not can_be_kept(recipe(tmp_path, "cut", training__sharding={"strategy": "fsdp", "cpu_offload": True}))


@pytest.fixture(scope="module")
def kept(local_ray: None) -> Iterator[KeptWorker]:
    worker = KeptWorker()
    yield worker
    worker.end()


def told_by(kept: KeptWorker, spec: FinetuneSpec, runs: Path, leave_at: int | None = None) -> list[int]:
    """Steps that were measured; at one of them the run is left, as Tune leaves a trial."""
    steps: list[int] = []

    def measured(metrics: dict[str, Any]) -> None:
        steps.append(metrics["step"])
        if metrics["step"] == leave_at:
            raise SystemExit(0)

    if leave_at is None:
        finetune(spec, runs, workers=kept.for_run(measured))
    else:
        with pytest.raises(SystemExit):
            finetune(spec, runs, workers=kept.for_run(measured))
    return steps


@pytest.mark.ray
@pytest.mark.fault("T4", "T9")
def test_it_goes_on_after_runs_that_were_left_killed_or_had_no_memory(tmp_path: Path, kept: KeptWorker) -> None:
    runs = tmp_path / "runs"
    assert told_by(kept, recipe(tmp_path, "first"), runs) == [2, 4, 6]
    process = kept.begun(ONE_CPU)
    assert told_by(kept, recipe(tmp_path, "left", 1e-3), runs, leave_at=4) == [2, 4]
    assert executed(Run(runs / "left")) == [1, 2, 3, 4]
    memory = recipe(tmp_path, "memory", 2e-3, "forward:memory@3")
    assert told_by(kept, memory, runs) == [2, 4, 6] and interruptions(Run(runs / "memory")) == ["memory"]
    assert kept.begun(ONE_CPU) is process, "none of these ended the process"
    notice = recipe(tmp_path, "notice", 3e-3, "step:term@3")
    assert told_by(kept, notice, runs)[-1] == STEPS and interruptions(Run(runs / "notice")) == ["preemption"]
    assert executed(Run(runs / "notice")) == [*range(1, STEPS + 1)], "no step is done again"
    assert kept.begun(ONE_CPU) is not process, "a process that is asked to stop is given up"
    process = kept.begun(ONE_CPU)
    killed = recipe(tmp_path, "killed", 3e-3, "step:kill@3")
    assert told_by(kept, killed, runs) == [2, 4, 6] and interruptions(Run(runs / "killed")) == ["infrastructure"]
    assert kept.begun(ONE_CPU) is not process and executed(Run(runs / "killed")) == [1, 2, 3, *range(3, STEPS + 1)]
    assert told_by(kept, recipe(tmp_path, "left", 1e-3), runs) == [6], "from the checkpoint where it was left"
    for name in ("first", "left", "notice", "killed"):
        assert is_as_alone(Run(runs / name), alone(Run(runs / name), tmp_path))


@pytest.mark.ray
@pytest.mark.fault("T4")
def test_one_that_is_stopped_is_given_up_and_one_without_room_in_memory_says_so(
    tmp_path: Path, kept: KeptWorker
) -> None:
    once = {"placement__max_failures": 0, "placement__hang_timeout_seconds": 3.0}
    stopped = recipe(tmp_path, "stopped", 1e-2, "step:stop@2", **once)
    with pytest.raises(WorkersLost, match=r"has not answered for 3 s \(placement\.hang_timeout_seconds\)"):
        finetune(stopped, tmp_path / "runs", workers=kept.for_run())
    spec = recipe(tmp_path, "memory", 1e-2, "forward:memory@1", "forward:memory@2")
    with pytest.raises(OutOfMemory, match=r"training\.micro_batch_size 1 a worker still needs more memory"):
        finetune(spec, tmp_path / "runs", workers=kept.for_run())


@pytest.mark.ray
def test_runs_beside_each_other_keep_a_worker_each_and_one_that_fails_costs_itself(
    tmp_path: Path, kept: KeptWorker
) -> None:
    kept.end()
    specs = [recipe(tmp_path, f"run-{number}", 10.0**-number) for number in (2, 3)]
    specs.append(recipe(tmp_path, "broken", 1e-2, "step:raise@2"))
    errors = dict(finetune_each(specs, tmp_path / "runs", 2))
    assert (errors[0], errors[1]) == (None, None) and "failpoint step struck at 2" in str(errors[2])
    for spec in specs[:2]:
        run = Run(tmp_path / "runs" / spec.name)
        assert is_as_alone(run, alone(run, tmp_path))


def test_a_worker_is_kept_where_no_other_run_may_wait_for_what_it_holds(tmp_path: Path) -> None:
    alike = [recipe(tmp_path, name) for name in ("first", "second")]
    assert can_share_workers(alike)
    assert not can_share_workers([*alike, recipe(tmp_path, "two", placement__num_workers=2)])
    assert not can_share_workers([*alike, recipe(tmp_path, "larger", placement__cpus_per_worker=2)])
