"""What kind of failure ended an attempt, and so what a restart would cost or bring.

On a worker, libraries' errors become our own (`explained`); on the driver, those of all workers become one `Failure`.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)
from ray.train.v2.api.exceptions import ControllerError, PreemptionError, TrainingFailedError, WorkerGroupError

from didact.devices import is_out_of_memory, memory_words
from didact.errors import DeviceError, DidactError, ModelTooLarge, OutOfMemory, RunError, WorkersLost
from didact.runs import Run

Kind = Literal["final", "infrastructure", "preemption", "memory"]
# What the libraries say where they have no type for it.
_PEER_GONE = ("gloo", "nccl", "processgroup", "connection closed by peer", "connection reset by peer")
_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)
# Of a GPU that needs a reset or a repair; the same work succeeds on another.
_GPU_FAILED = ("ecc error", "fallen off the bus", "unspecified launch failure", "nvlink", "hardware stack error")
_FRAME = re.compile(r'  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>.+)')
_KILLED_FOR_MEMORY = "low on memory"  # Ray's memory monitor, also where another process has taken the memory
STOPPED = (TrainingFailedError, RayActorError, OutOfMemoryError)
"""What Ray raises when an attempt ends early: workers' errors, or those of its own controller."""
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


def classify(error: Exception) -> Failure:
    """Ray Train's error -> the failure behind it.

    One worker's failure makes its peers fail with it, so the most telling error counts: taken away with notice, then
    out of memory, then didact's own word, then a lost process. A Python error of a worker that lost nobody is a
    mistake in the program or the recipe.
    """
    if isinstance(error, OutOfMemoryError):
        return Failure("memory", OutOfMemory(_line(error)), f"Ray: {_line(error)}")
    if isinstance(error, RayActorError):
        return Failure("infrastructure", error, f"Ray Train's controller: {_line(error)}")
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


def explained(error: MemoryError | RuntimeError, patience_seconds: float, device: torch.device) -> DidactError | None:
    """Our own error for what a library says on a worker, in one line; None for a mistake in the program.

    Args:
        error: as caught around training.
        patience_seconds: the timeout of collective operations.
        device: where the worker computes.
    """
    words = " ".join(str(error).split())
    lower = words.lower()
    if is_out_of_memory(error):
        return OutOfMemory(memory_words(error, device))
    if any(sign in lower for sign in _GPU_FAILED):
        return WorkersLost(f"a GPU has failed: {words}")
    if "duplicate gpu" in lower:
        return DeviceError(f"two workers were given one GPU, so NCCL cannot connect them: {words}")
    if not isinstance(error, torch.distributed.DistError) and not any(sign in lower for sign in _PEER_GONE):
        return None
    if _TIMED_OUT.search(words):
        return WorkersLost(
            f"a sum over workers was not complete after {patience_seconds:g} s (placement.hang_timeout_seconds), since "
            f"one of them hangs or is gone: {words}"
        )
    return WorkersLost(f"a sum over workers failed: {words}")


def stack_file(run: Run, attempt: int, rank: int) -> Path:
    """Where a worker that hangs writes what its threads are doing."""
    return run.stacks / f"attempt-{attempt}-worker-{rank}.txt"


def with_stacks(failure: Failure, run: Run, attempt: int, num_workers: int, patience_seconds: float) -> Failure:
    """The failure with the places where workers hung as its cause, if they ended themselves for that."""
    written, silent = {}, []
    for rank in range(num_workers):
        file = stack_file(run, attempt, rank)
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        if text:
            written[rank] = text
        else:
            file.unlink(missing_ok=True)
            silent.append(str(rank))
    if not written or failure.kind != "infrastructure":
        return failure
    places = [f"worker {rank} was {_place(text)}" for rank, text in written.items()]
    if silent:
        places.append(f"worker {', '.join(silent)} left no trace (stopped, or ended first)")
    cause = f"no step within {patience_seconds:g} s (placement.hang_timeout_seconds): {'; '.join(places)}"
    return replace(failure, cause=f"{cause}. Stacks are in {run.stacks}")


def _place(stacks: str) -> str:
    """Where the thread that trains stood: its innermost function, and the line of ours that called it."""
    threads = [list(_FRAME.finditer(each)) for each in stacks.split("\n\n")]
    training = [frames for frames in threads if any("didact" in frame["file"] for frame in frames)]
    frames = next(iter(training), None) or next((each for each in threads if each), None)
    if not frames:
        return "somewhere unknown"
    ours = next((frame for frame in frames if "didact" in frame["file"]), frames[0])
    place = "/".join(Path(ours["file"]).parts[-2:])
    return f"in {frames[0]['function']}, called at {place}:{ours['line']}"


def final_error(failure: Failure) -> DidactError:
    """What to raise for a failure that is not tried again."""
    if isinstance(failure.error, DidactError):
        return failure.error
    return RunError(f"not tried again, since the same would happen: {failure.cause} ({type(failure.error).__name__})")


def _kind(error: Exception) -> tuple[Kind, int]:
    """The kind of one worker's error, and its place in the order of precedence."""
    if isinstance(error, RayActorError) and error.preempted:
        return "preemption", 0
    if isinstance(error, ModelTooLarge):
        return "memory", 0
    killed = isinstance(error, RayActorError | OutOfMemoryError) and _KILLED_FOR_MEMORY in str(error)
    if killed or isinstance(error, OutOfMemory):
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
    lines = [line for line in lines if _KILLED_FOR_MEMORY in line] or lines
    return lines[-1].strip() if lines else type(error).__name__
