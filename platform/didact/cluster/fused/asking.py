"""Who has runs trained together: the worker's beginning and end, a run begun, its measurements decided upon."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from didact.capacity import WorkerResources
from didact.cluster.placement import check_room, worker_resources
from didact.connect.pool import begin_actor
from didact.errors import DidactError, WorkersLost
from didact.spec import FinetuneSpec, PlacementSpec, with_absolute_paths

FUSED_AT_ONCE = 8
"""Runs that are trained together where nobody says how many."""
_CALLS_AT_ONCE = 256
"""Runs, and those who ask for their measurements, are in calls of their own."""


class FusedActor:
    """The worker as an actor. Whoever asks it loads the types in the signatures of its methods, so these are plain."""

    def __init__(self, resources: WorkerResources, together: int, log: Path | None) -> None:
        """
        Args:
            resources: what it was given.
            together: runs that begin together.
            log: what it writes down; None where nothing.
        """
        begin_actor(log)
        from didact.cluster.fused.worker import FusedWorker

        self._worker = FusedWorker(resources, together)

    def train(self, values: dict[str, Any], runs_dir: str, parent_run_id: str | None, is_asked: bool) -> None:
        """Take a run along its whole road."""
        self._worker.train(values, runs_dir, parent_run_id, is_asked=is_asked)

    def measurement(self, name: str) -> dict[str, Any] | None:
        """The next measurement of a run."""
        return self._worker.measurement(name)

    def leave(self, name: str) -> None:
        """End a run where it is."""
        self._worker.leave(name)


@contextlib.contextmanager
def fused_worker(name: str, placement: PlacementSpec, *, together: int = 1, log: Path | None = None) -> Iterator[str]:
    """Inside the block an actor of this name trains runs that join it.

    Args:
        name: which no other actor has.
        placement: of one worker.
        together: runs that begin together.
        log: what it writes down.

    Raises:
        PlacementError: the cluster will never have room for it.
    """
    resources = worker_resources(placement)
    check_room(placement, resources)
    options = {**resources.actor_options(), "name": name, "max_concurrency": _CALLS_AT_ONCE}
    actor = ray.remote(FusedActor).options(**options).remote(resources, together, log)
    try:
        yield name
    finally:
        ray.kill(actor)


def begin_in_group(
    worker: str, spec: FinetuneSpec, runs_dir: Path, parent_run_id: str | None, *, is_asked: bool = False
) -> Any:
    """Have a run go its whole road in the worker of that name.

    Args:
        worker: its name.
        spec: of the run; its relative paths begin at this process's working directory.
        runs_dir: where run folders lie.
        parent_run_id: MLflow run that it belongs to.
        is_asked: it waits after each measurement until that was decided upon, see `train_in_group`.

    Returns:
        Ray's reference to its end, for `end_of`.

    Raises:
        WorkersLost: the worker is gone.
    """
    values = with_absolute_paths(spec).model_dump(mode="json")
    return _actor(worker, spec.name).train.remote(values, str(runs_dir), parent_run_id, is_asked=is_asked)


def end_of(run: Any, name: str) -> None:
    """Wait for the end of a run that was begun.

    Args:
        run: what `begin_in_group` returned.
        name: of the run.

    Raises:
        WorkersLost: the worker is gone.
        DidactError: what the worker says of this run.
    """
    try:
        ray.get(run)
    except RayTaskError as error:
        if isinstance(error.cause, DidactError):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise _lost(name, error) from error


def train_in_group(
    worker: str,
    spec: FinetuneSpec,
    runs_dir: Path,
    parent_run_id: str | None,
    measured: Callable[[dict[str, Any]], object],
) -> None:
    """Have a run go its whole road in the worker of that name, and decide after each of its measurements.

    Args:
        worker: its name.
        spec: of the run.
        runs_dir: where run folders lie.
        parent_run_id: MLflow run that it belongs to.
        measured: is told the metrics of a step with its number and that of all (`step`, `num_steps`); the run goes on
            when it returns.

    Raises:
        WorkersLost: the worker is gone.
        DidactError: what the worker says of this run.
    """
    run = begin_in_group(worker, spec, runs_dir, parent_run_id, is_asked=True)
    try:
        while (told := ray.get(_actor(worker, spec.name).measurement.remote(spec.name))) is not None:
            measured(told)
    except RayActorError as error:
        raise _lost(spec.name, error) from error
    end_of(run, spec.name)


def end_in_group(worker: str, run: str) -> None:
    """Have a run leave the worker of that name, if it is still there: who began it is gone, or wants no more of it."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.get(ray.get_actor(worker).leave.remote(run))


def _actor(worker: str, run: str) -> Any:
    try:
        return ray.get_actor(worker)
    except ValueError as error:  # Ray's word for an actor that is not there
        raise _lost(run, error) from error


def _lost(run: str, error: Exception) -> WorkersLost:
    return WorkersLost(
        f"the worker that trains run {run!r} with others is gone: {error}. The same command goes on from the newest "
        "checkpoints"
    )
