"""Attempts at training until it is done: each class of interruption has its own budget.

Every restart is an attempt of its own at Ray, so the workers are placed anew: on what is there now, or with an error.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

from didact.capacity import WorkerResources
from didact.cluster.failures import STOPPED, Failure, Kind, classify, final_error, stack_file, with_stacks
from didact.cluster.memory import final_word
from didact.cluster.placement import fits, worker_resources
from didact.cluster.train import Attempt, WorkerGroup
from didact.errors import ModelTooLarge, OutOfMemory, WorkersLost
from didact.files import append_jsonl
from didact.logs import get_logger
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.tracking import complete_size, last_attempt
from didact.training import TrainResult

_LOG = get_logger(__name__)
_PROBE_SECONDS = 1.0
_FIELDS: dict[Kind, str] = {"infrastructure": "max_failures", "preemption": "max_preemptions"}


class Estimate(Protocol):
    """Tells in words how much memory a worker of a recipe should need."""

    def __call__(self, spec: FinetuneSpec, *, on_cpu: bool) -> str:
        """For workers on CPUs, or on GPUs."""


def train_to_the_end(
    run: Run,
    spec: FinetuneSpec,
    *,
    num_steps: int,
    estimate: Estimate,
    workers: WorkerGroup,
    allow_fresh: bool = False,
    until: int | None = None,
) -> TrainResult:
    """Train until the run's last step, going on from the newest checkpoint after every interruption.

    Args:
        run: an opened run; its folder must be visible to every worker.
        spec: its recipe.
        num_steps: optimizer steps of the whole run.
        estimate: asked when memory is used up.
        workers: who trains.
        allow_fresh: start from the base when no checkpoint verifies.
        until: steps after which to save a checkpoint and return; None for all.

    Raises:
        PlacementError: there is no room, or no more.
        WorkersLost: interrupted more often than the recipe allows.
        OutOfMemory: also with half the micro-batch.
        DidactError: what the workers themselves said, such as TrainingDiverged; never tried again.
    """
    left = {"infrastructure": spec.placement.max_failures, "preemption": spec.placement.max_preemptions, "memory": 1}
    micro_batch = spec.training.micro_batch_size
    while True:
        resources = worker_resources(spec.placement)
        size = workers.room(spec.placement, resources)
        attempt = Attempt(last_attempt(run.steps) + 1, size, micro_batch, allow_fresh, until)
        for rank in range(size):
            stack_file(run, attempt.number, rank).unlink(missing_ok=True)  # of an attempt that ended without a step
        try:
            with _growing(run, spec, resources, size) as grows:
                result = workers.train(run, spec, resources, attempt)
            if result.steps >= min(num_steps, until or num_steps):
                with contextlib.suppress(OSError):
                    run.stacks.rmdir()  # stays where a worker has hung
                return result
            if grows.is_set():
                _record(run, "growth", f"room for more than {size} workers", result.steps)
                continue
            failure = Failure("preemption", WorkersLost("workers were told to stop"), "workers were told to stop")
        except STOPPED as error:
            patience = spec.placement.hang_timeout_seconds
            failure = with_stacks(classify(error), run, attempt.number, size, patience)
            if failure.kind == "final":
                raise final_error(failure) from error
        _record(run, failure.kind, failure.cause, None)
        if failure.kind == "memory":
            micro_batch = _halved(spec, micro_batch, left["memory"], failure, resources, estimate)
        elif not left[failure.kind]:
            raise _once_too_often(run, spec, failure.kind, failure.cause) from failure.error
        left[failure.kind] -= 1
        _LOG.warning("run %s interrupted (%s: %s); going on", run.name, failure.kind, failure.cause)


def _once_too_often(run: Run, spec: FinetuneSpec, kind: Kind, cause: str) -> WorkersLost:
    field = _FIELDS[kind]
    return WorkersLost(
        f"training of run {run.name!r} was interrupted after {getattr(spec.placement, field)} restarts "
        f"(placement.{field}): {cause}. The same command goes on from the newest checkpoint"
    )


def _halved(
    spec: FinetuneSpec, micro_batch: int, tries: int, failure: Failure, resources: WorkerResources, estimate: Estimate
) -> int:
    if not tries or micro_batch == 1 or isinstance(failure.error, ModelTooLarge):
        tried = spec.model_copy(update={"training": spec.training.model_copy(update={"micro_batch_size": micro_batch})})
        error = failure.error if isinstance(failure.error, OutOfMemory) else OutOfMemory(str(failure.error))
        words = estimate(tried, on_cpu=not resources.use_gpu)
        raise final_word(error, failure.cause, tried, words, on_gpu=resources.use_gpu) from failure.error
    _LOG.warning("out of memory: training.micro_batch_size %d is halved, the batch of a step stays", micro_batch)
    return micro_batch // 2


def _record(run: Run, kind: str, cause: str, step: int | None) -> None:
    append_jsonl(run.interruptions, {"class": kind, "cause": cause, "step": step})


@contextlib.contextmanager
def _growing(run: Run, spec: FinetuneSpec, resources: WorkerResources, size: int) -> Iterator[threading.Event]:
    """While fewer than the most workers train, look for room and ask them to stop when there is; sets the event."""
    grows, ended = threading.Event(), threading.Event()
    run.stop_request.unlink(missing_ok=True)
    written = complete_size(run.steps)

    def look() -> None:
        while not ended.wait(spec.placement.resize_check_seconds):
            # Until they have done a step, the room found might be that of workers still to be placed.
            if complete_size(run.steps) > written and fits(1, resources, _PROBE_SECONDS):
                grows.set()
                run.stop_request.touch()
                return

    thread = threading.Thread(target=look, daemon=True, name="room for more")
    if size < spec.placement.max_workers:
        thread.start()
    try:
        yield grows
    finally:
        ended.set()
        if thread.ident:
            thread.join()
        run.stop_request.unlink(missing_ok=True)
