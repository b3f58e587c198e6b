"""A worker that dies or hangs in a sum becomes a line that says so, in the time that the recipe gives it."""

import os
import runpy
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from didact.cluster.callbacks import Heartbeat
from didact.cluster.failures import Failure, explained, stack_file, with_stacks
from didact.errors import DeviceError, DidactError, OutOfMemory, WorkersLost
from didact.files import write_text
from didact.runs import Run
from didact.training import World
from tests.fakes.processes import begin
from tests.fakes.workers import run_workers

PATIENCE = 2.0


def sum_and_explain(file: Path) -> None:
    """Worker 0 sums; what it meets is written down in our words."""
    try:
        World.current().sum(torch.ones(2))
    except RuntimeError as error:
        own = explained(error, PATIENCE, torch.device("cpu"))
        write_text(file, f"{type(own).__name__}: {own}")


def meet_a_hung_worker(file: Path) -> None:
    store = dist.distributed_c10d._get_default_store()
    World.current().sum(torch.ones(2))  # connected, which on a busy machine takes longer than the sum below may
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=PATIENCE))
    if dist.get_rank() == 0:
        sum_and_explain(file)
        store.set("explained", "yes")
    else:
        store.wait(["explained"], timedelta(minutes=2))


def meet_a_dead_worker(file: Path) -> None:
    if dist.get_rank() == 1:
        os._exit(0)
    sum_and_explain(file)


def test_a_hung_worker_ends_the_sum_in_time(tmp_path: Path) -> None:
    run_workers(meet_a_hung_worker, tmp_path, tmp_path / "said")
    said = (tmp_path / "said").read_text()
    assert said.startswith(
        "WorkersLost: a sum over workers was not complete after 2 s (placement.hang_timeout_seconds)"
    )
    assert "\n" not in said


def test_a_dead_worker_ends_the_sum_at_once(tmp_path: Path) -> None:
    run_workers(meet_a_dead_worker, tmp_path, tmp_path / "said")
    assert (tmp_path / "said").read_text().startswith("WorkersLost: a sum over workers failed: ")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (dist.DistBackendError("NCCL error: remote process exited"), WorkersLost, "a sum over workers failed"),
        (dist.DistBackendError("collective operation timeout: timed out"), WorkersLost, "not complete after 2 s"),
        (dist.DistNetworkError("connection reset"), WorkersLost, "a sum over workers failed"),
        (RuntimeError("NCCL Error 1\nCuda failure 2 'out of memory'"), OutOfMemory, " GiB: NCCL Error 1 Cuda"),
        (dist.DistBackendError("Duplicate GPU detected : rank 0 and rank 1"), DeviceError, "were given one GPU"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), WorkersLost, "a GPU has failed"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), OutOfMemory, "out of memory on a machine with "),
        (RuntimeError("CUDA error: device-side assert triggered"), None, ""),
        (RuntimeError("shape '[2]' is invalid"), None, ""),
    ],
    ids=str,
)
def test_errors_of_libraries_have_a_class(error: RuntimeError, kind: type[DidactError] | None, words: str) -> None:
    own = explained(error, PATIENCE, torch.device("cpu"))
    assert type(own) is (kind or type(None))
    assert own is None or (words in str(own) and "\n" not in str(own))


HANGS = """
import sys, threading
from pathlib import Path
from didact.cluster.callbacks import Heartbeat

def reads_a_broken_disk():
    threading.Event().wait()

heartbeat = Heartbeat(0.3, Path(sys.argv[1]))
heartbeat.on_start(0, 10)
reads_a_broken_disk()
"""


def run_script(script: Path, stacks: Path) -> None:
    sys.argv = [str(script), str(stacks)]
    runpy.run_path(str(script), run_name="__main__")


def test_a_worker_without_a_step_ends_itself_and_says_where_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path)
    script = tmp_path / "didact" / "slow.py"
    write_text(script, HANGS)
    worker = begin(run_script, script, stack_file(run, 3, 1))
    worker.join()
    assert worker.exitcode == 1
    lost = Failure("infrastructure", WorkersLost("the actor died"), "worker 0: the actor died")
    told = with_stacks(lost, run, 3, 2, 0.3)
    assert told.kind == "infrastructure" and told.error is lost.error
    assert told.cause == (
        "no step within 0.3 s (placement.hang_timeout_seconds): worker 1 was in wait, called at didact/slow.py:7; "
        f"worker 0 left no trace (stopped, or ended first). Stacks are in {run.stacks}"
    )
    assert with_stacks(lost, run, 2, 2, 0.3) is lost, "another attempt hung"
    memory = Failure("memory", OutOfMemory("out of memory"), "worker 0: out of memory")
    assert with_stacks(memory, run, 3, 2, 0.3) is memory


def test_a_worker_that_goes_on_leaves_no_stacks(tmp_path: Path) -> None:
    file = tmp_path / "stacks" / "worker.txt"
    heartbeat = Heartbeat(60, file)
    heartbeat.on_start(0, 10)
    assert file.read_text() == ""
    heartbeat.close()
    assert not file.exists()
