"""Several runs, one after the other or beside each other."""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from didact.cluster.finetuning import finetune
from didact.cluster.fused.asking import begin_in_group, end_of, fused_worker
from didact.cluster.progress import StepsOfRuns
from didact.connect import receive
from didact.errors import DidactError
from didact.logs import get_logger
from didact.runs import Run
from didact.spec import FinetuneSpec, validate, with_absolute_paths

_LOG = get_logger(__name__)
_TOLD_SECONDS = 60.0
"""Between two lines that say how far runs are which train beside each other."""


def finetune_each(
    specs: Sequence[FinetuneSpec],
    runs_dir: Path,
    at_once: int,
    *,
    parent_run_id: str | None = None,
    until: int | None = None,
    worker: str | None = None,
) -> Iterator[tuple[int, str | None]]:
    """Run recipes to their ends, as they end; one that fails costs itself.

    Must be called within `ray_cluster`. With one at a time they run in this process, which shows how each goes on.

    Args:
        specs: each with a name of its own.
        runs_dir: where run folders lie.
        at_once: runs beside each other, each in a process of its own.
        parent_run_id: MLflow run that they belong to.
        until: optimizer steps after which each pauses; None for all.
        worker: name of the one that trains them together on one base (`fused_worker`); None where each has its own.

    Yields:
        Index of a run that has ended, and what kept it from its end.
    """
    if at_once == 1 and worker is None:
        for place, spec in enumerate(specs):
            _LOG.info("run %d of %d: %s", place + 1, len(specs), spec.name)
            yield place, _attempt(spec, runs_dir, parent_run_id, until)
        return
    # Nothing is reserved for a run itself: its workers have their own reservation, and would else not fit.
    elsewhere = ray.remote(num_cpus=0, max_retries=0)(_elsewhere)
    left, begun = list(enumerate(specs)), dict[Any, int]()
    steps = StepsOfRuns([Run(runs_dir / spec.name) for spec in specs], until)
    while left or begun:
        while left and len(begun) < at_once:
            place, spec = left.pop(0)
            _LOG.info("run %d of %d begins: %s", place + 1, len(specs), spec.name)
            if worker is not None:
                begun[begin_in_group(worker, spec, runs_dir, parent_run_id)] = place
                continue
            absolute = with_absolute_paths(spec)  # that process may have another working directory
            words = (absolute.model_dump(mode="json"), str(runs_dir), parent_run_id, until)
            begun[elsewhere.remote(*words)] = place
        while not (done := ray.wait(list(begun), num_returns=1, timeout=_TOLD_SECONDS)[0]):
            _LOG.info("%d of %d runs go on: %s", len(begun), len(specs), steps)
        ended = done[0]
        place = begun.pop(ended)
        yield place, _outcome(ended, specs[place].name, in_group=worker is not None)


def train_together(
    specs: Sequence[FinetuneSpec], runs_dir: Path, at_once: int, parent_run_id: str | None = None
) -> Iterator[tuple[int, str | None]]:
    """Train recipes of one base together, as `finetune_each` trains them one by one; what follows training is left.

    Args:
        specs: which `fused_groups` found alike.
        runs_dir: where run folders lie.
        at_once: runs in memory beside each other.
        parent_run_id: MLflow run that they belong to.
    """
    trained = [spec.model_copy(update={"evaluation": None, "register_as": None}) for spec in specs]
    together, name = min(at_once, len(specs)), f"fused-{uuid.uuid4().hex[:16]}"
    log = runs_dir.parent / "fused.log"
    with fused_worker(name, specs[0].placement, together=together, log=log) as worker:
        yield from finetune_each(trained, runs_dir, together, parent_run_id=parent_run_id, worker=worker)


def _attempt(spec: FinetuneSpec, runs_dir: Path, parent_run_id: str | None, until: int | None) -> str | None:
    try:
        finetune(spec, runs_dir, parent_run_id=parent_run_id, until=until)
    except DidactError as error:
        return _words(error)
    return None


def _elsewhere(values: dict[str, Any], runs_dir: str, parent_run_id: str | None, until: int | None) -> str | None:
    receive()
    return _attempt(validate(FinetuneSpec, values, "run"), Path(runs_dir), parent_run_id, until)


def _outcome(ended: Any, name: str, *, in_group: bool) -> str | None:
    try:
        if not in_group:
            told: str | None = ray.get(ended)
            return told
        end_of(ended, name)
    except ray.exceptions.RayError as error:  # asked first: what a task raised is of its own kind as well
        cause = getattr(error, "cause", None)
        return (str(error) if cause is None else _words(cause)).strip().splitlines()[-1]
    except DidactError as error:
        return _words(error)
    return None


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
