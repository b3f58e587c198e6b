"""Which failures are tried again, and on whose account; recipes that say how many workers."""

import pickle
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError
from ray.train.v2.api.preemption import PreemptionInfo

from didact.cluster.failures import classify, final_error
from didact.errors import (
    DataError,
    DidactError,
    OutOfMemory,
    PlacementError,
    RunError,
    SpecError,
    StorageError,
    TrainingDiverged,
    WorkersLost,
)
from didact.spec import PlacementSpec, WorkerRange, validate
from tests.fakes.recipes import tiny_recipe

DEAD = WorkerHealthCheckFailedError("no answer", ActorDiedError())
KILLED = """8 worker(s) were killed due to the node running low on memory.
OOM kill reason: Memory usage exceeded threshold
Refer to the documentation"""
PEER = WorkersLost("a sum over workers failed: Connection closed by peer")


def group(**failures: Exception) -> TrainingFailedError:
    """Failures by worker, such as `rank1=...`."""
    return WorkerGroupError("failed", {int(rank[4:]): error for rank, error in failures.items()})


@pytest.mark.fault("T16")
@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (group(rank0=PEER, rank1=DEAD), "infrastructure", "worker 1: "),
        (group(rank1=WorkerHealthCheckTimeoutError("hangs")), "infrastructure", "worker 1: "),
        (group(rank0=PEER), "infrastructure", "worker 0: a sum over workers failed"),
        (group(rank0=PEER, rank1=OutOfMemory("out of memory: 3 GiB")), "memory", "worker 1: out of memory: 3 GiB"),
        (group(rank0=PEER, rank1=TypeError("int")), "final", "worker 1: int"),
        (group(rank0=DataError("bad rows"), rank1=DEAD), "final", "worker 0: bad rows"),
        (group(rank0=StorageError("disk full"), rank1=PEER), "final", "worker 0: disk full"),
        (group(rank0=ConnectionResetError("hub")), "infrastructure", "worker 0: hub"),
        (PreemptionError(PreemptionInfo(None, {"node": [1]})), "preemption", "Training was interrupted"),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), "infrastructure", "Ray Train: "),
        (ControllerError(ValueError("odd")), "final", "Ray Train: odd"),
        (OutOfMemoryError(KILLED), "memory", "Ray: 8 worker(s) were killed due to the node running low on memory."),
        (group(rank0=PEER, rank1=OutOfMemoryError(KILLED)), "memory", "worker 1: 8 worker(s) were killed"),
        (ActorDiedError(), "infrastructure", "Ray Train's controller: The actor died"),
    ],
)
def test_failures_have_a_class(error: Exception, kind: str, cause: str) -> None:
    found = classify(error)
    assert found.kind == kind and found.cause.startswith(cause)


@pytest.mark.fault("T16")
def test_a_final_failure_is_didacts_own_word_or_names_the_mistake() -> None:
    own = DataError("bad rows")
    assert final_error(classify(group(rank0=own))) is own
    mistake = final_error(classify(group(rank0=TypeError("int is no str"))))
    assert isinstance(mistake, RunError) and "worker 0: int is no str (TypeError)" in str(mistake)


@pytest.mark.fault("T16")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SpecError, 2),
        (OutOfMemory, 3),
        (TrainingDiverged, 4),
        (StorageError, 75),
        (WorkersLost, 75),
        (PlacementError, 75),
    ],
)
def test_exit_codes_tell_the_classes_apart_and_errors_cross_processes(error: type[DidactError], code: int) -> None:
    again = pickle.loads(pickle.dumps(error("what was found")))
    assert type(again) is error and str(again) == "what was found" and again.exit_code == code


def test_workers_are_a_number_or_a_range(tmp_path: Path) -> None:
    fixed, elastic = PlacementSpec(num_workers=3), PlacementSpec(num_workers=WorkerRange(min=1, max=4))
    assert (fixed.min_workers, fixed.max_workers) == (3, 3)
    assert (elastic.min_workers, elastic.max_workers) == (1, 4)
    read = tiny_recipe(tmp_path, placement__num_workers={"min": 1, "max": 4})
    assert read.placement == elastic


@pytest.mark.parametrize(
    ("workers", "found"),
    [
        (0, "found 0; expected a whole number of at least 1"),
        ({"min": 3, "max": 2}, "min is 3, which is above max 2"),
        ({"min": 1, "most": 2}, "unknown key"),
        (True, "found true.*expected a whole number of at least 1"),
    ],
)
def test_other_numbers_of_workers_are_refused(workers: object, found: str) -> None:
    with pytest.raises(SpecError, match=rf"num_workers.*{found}"):
        validate(PlacementSpec, {"num_workers": workers}, "recipe")


def test_more_workers_than_conversations_in_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"placement\.num_workers is 9 but training\.global_batch_size is 8"):
        tiny_recipe(tmp_path, placement__num_workers={"min": 1, "max": 9})
