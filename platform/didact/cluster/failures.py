"""What kind of failure ended an attempt, and so what a restart would cost or bring."""

from dataclasses import dataclass
from typing import Literal

from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError

from didact.errors import DidactError, OutOfMemory, RunError, WorkersLost

Kind = Literal["final", "infrastructure", "preemption", "memory"]
_STARTUP = (WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended."""

    kind: Kind
    """`final` is not tried again: the same would happen."""
    error: Exception
    """The first cause."""
    cause: str
    """In a line: worker and what befell it."""


def classify(error: TrainingFailedError) -> Failure:
    """Ray Train's error -> the failure behind it.

    One worker's failure makes its peers fail with it, so the most telling error counts: taken away with notice, then
    out of memory, then didact's own word, then a lost process. A Python error of a worker that lost nobody is a
    mistake in the program or the recipe.
    """
    if isinstance(error, PreemptionError):
        return Failure("preemption", error, _line(error))
    if isinstance(error, ControllerError):
        kind: Kind = "infrastructure" if isinstance(error.controller_failure, _STARTUP) else "final"
        return Failure(kind, error, f"Ray Train: {_line(error)}")
    if not isinstance(error, WorkerGroupError) or not error.worker_failures:
        return Failure("infrastructure", error, _line(error))
    failures = {rank: _unwrapped(failure) for rank, failure in error.worker_failures.items()}
    rank, (kind, _) = min(((rank, _kind(each)) for rank, each in failures.items()), key=lambda found: found[1][1])
    return Failure(kind, failures[rank], f"worker {rank}: {_line(failures[rank])}")


def final_error(failure: Failure) -> DidactError:
    """What to raise for a failure that is not tried again."""
    if isinstance(failure.error, DidactError):
        return failure.error
    return RunError(f"not tried again, since the same would happen: {failure.cause} ({type(failure.error).__name__})")


def _kind(error: Exception) -> tuple[Kind, int]:
    """The kind of one worker's error, and its place in the order of precedence."""
    if isinstance(error, RayActorError) and error.preempted:
        return "preemption", 0
    if isinstance(error, OutOfMemory):
        return "memory", 1
    if isinstance(error, DidactError) and not isinstance(error, WorkersLost):
        return "final", 2
    if isinstance(error, RayActorError | WorkerHealthCheckTimeoutError):
        return "infrastructure", 3
    if isinstance(error, WorkersLost | OSError):
        return "infrastructure", 5
    return "final", 4


def _unwrapped(error: Exception) -> Exception:
    return error.health_check_failure if isinstance(error, WorkerHealthCheckFailedError) else error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
