"""Faults in the workers of Ray Train: the run ends as if nothing had happened, at the stated cost."""

import time
from pathlib import Path

import psutil
import pytest

from didact.cluster import finetune
from didact.errors import OutOfMemory, RunError, WorkersLost
from didact.files import write_text
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.tracking import effective_records
from tests.fakes.lineage import executed, interruptions, lineage, same_weights
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.usefixtures("local_ray")]
INTERVAL = 4  # steps between checkpoints


def recipe(folder: Path, name: str, *faults: str, **changes: object) -> FinetuneSpec:
    """A run of ten steps with armed faults; without dropout, so that numbers of workers can be compared."""
    write_text(folder / "runs" / name / "failpoint", "\n".join(faults) + "\n")
    return tiny_recipe(folder, name=name, evaluation=None, adapter__dropout=0.0, **changes)


def struck(run: Run) -> int:
    return len(list(run.path.glob("failpoint-*-struck")))


def train_workers() -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["name"]) if "RayTrainWorker" in (each.info["name"] or "")]


def no_worker_is_left() -> bool:
    """Ray takes a moment to end processes; a stopped one would stay for ever."""
    until = time.monotonic() + 30
    while train_workers() and time.monotonic() < until:
        time.sleep(0.2)
    return not train_workers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def unbroken(folder: Path, local_ray: None) -> Run:
    return finetune(tiny_recipe(folder, name="unbroken", evaluation=None, adapter__dropout=0.0), folder / "runs").run


@pytest.mark.fault("T4")
def test_killed_inside_a_step(folder: Path, unbroken: Run) -> None:
    spec = recipe(folder, "inside", "forward:kill@3", "between:kill@6", "update:kill@10")
    run = finetune(spec, folder / "runs").run
    assert struck(run) == 3 and interruptions(run) == ["infrastructure"] * 3
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)
    assert len(executed(run)) - 10 <= 3 * INTERVAL


@pytest.mark.fault("T5")
def test_killed_second_worker(folder: Path, unbroken: Run) -> None:
    run = finetune(recipe(folder, "second", "forward-rank1:kill@6"), folder / "runs").run
    assert struck(run) == 1 and interruptions(run) == ["infrastructure"]
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)
    assert no_worker_is_left()


@pytest.mark.fault("T6")
def test_killed_right_after_a_report(folder: Path, unbroken: Run) -> None:
    run = finetune(recipe(folder, "reported", "step:kill@4"), folder / "runs").run
    assert struck(run) == 1 and executed(run) == list(range(1, 11)), "not resumed at the last committed step"
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)
    assert sorted(each.name for each in run.checkpoints.iterdir()) == ["step-00000008", "step-00000010"]


@pytest.mark.fault("T9")
@pytest.mark.parametrize("rank", [0, 1])
def test_terminated_with_notice_costs_no_step(folder: Path, unbroken: Run, rank: int) -> None:
    spec = recipe(folder, f"notice-{rank}", f"step-rank{rank}:term@5", placement__max_failures=0)
    run = finetune(spec, folder / "runs").run
    assert struck(run) == 1 and interruptions(run) == ["preemption"]
    assert executed(run) == list(range(1, 11))
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)


@pytest.mark.fault("T10")
def test_killed_while_saving_after_a_notice(folder: Path, unbroken: Run) -> None:
    faults = ("forward:term@6", "save:kill@6", "save:kill@7")  # the notice is seen in this step or the next
    run = finetune(recipe(folder, "cut", *faults), folder / "runs").run
    assert struck(run) == 2 and interruptions(run) == ["infrastructure"]
    assert executed(run).count(5) == 2, "not resumed from the checkpoint before"
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)


@pytest.mark.fault("T11", "C4")
def test_other_numbers_of_workers_and_a_damaged_record_of_ray(folder: Path, unbroken: Run) -> None:
    faults = ("step:raise@5", "step:raise@8")
    for workers in (2, 1):
        with pytest.raises(RunError, match=r"not tried again.*failpoint step struck"):
            finetune(recipe(folder, "resized", *faults, placement__num_workers=workers), folder / "runs")
        for snapshot in (folder / "runs" / "resized" / "ray").rglob("*.json"):
            snapshot.write_bytes(snapshot.read_bytes()[:7])
    run = finetune(recipe(folder, "resized", *faults), folder / "runs").run
    for one, other in zip(effective_records(unbroken.steps), effective_records(run.steps), strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.metrics["train/loss"] == pytest.approx(other.metrics["train/loss"], rel=1e-6)


@pytest.mark.fault("T14")
def test_out_of_memory_halves_the_micro_batch_once(folder: Path, unbroken: Run) -> None:
    spec = recipe(folder, "memory", "forward:memory@3", "between-rank1:memory@6", placement__max_failures=0)
    with pytest.raises(OutOfMemory, match=r"training\.micro_batch_size 1 a worker still needs more memory"):
        finetune(spec, folder / "runs")
    run = finetune(spec, folder / "runs").run
    assert struck(run) == 2 and interruptions(run) == ["memory", "memory"]
    for one, other in zip(effective_records(unbroken.steps), effective_records(run.steps), strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.metrics["train/loss"] == pytest.approx(other.metrics["train/loss"], rel=1e-5)


@pytest.mark.fault("T15")
def test_a_stopped_process_is_found_and_replaced(folder: Path, unbroken: Run) -> None:
    spec = recipe(folder, "stopped", "step-rank1:stop@5", placement__hang_timeout_seconds=12)
    run = finetune(spec, folder / "runs").run
    assert struck(run) == 1 and interruptions(run) == ["infrastructure"]
    assert lineage(run) == lineage(unbroken) and same_weights(run, unbroken)
    assert no_worker_is_left()


@pytest.mark.fault("T16")
def test_a_mistake_in_the_program_is_not_tried_again(folder: Path) -> None:
    spec = recipe(folder, "mistake", "forward-rank1:raise@2", "forward-rank1:raise@2")
    with pytest.raises(RunError, match="not tried again") as failed:
        finetune(spec, folder / "runs")
    run = Run(folder / "runs" / "mistake")
    assert failed.value.exit_code == 2 and struck(run) == 1 and interruptions(run) == []


@pytest.mark.fault("T4")
def test_a_budget_ends(folder: Path) -> None:
    spec = recipe(folder, "budget", "forward:kill@2", "forward:kill@2", placement__max_failures=1)
    with pytest.raises(WorkersLost, match=r"after 1 restarts .placement\.max_failures") as failed:
        finetune(spec, folder / "runs")
    assert failed.value.exit_code == 75
