"""Several runs, one after the other or beside each other."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from didact.cluster.finetune import finetune
from didact.connect import receive
from didact.errors import DidactError
from didact.logs import get_logger
from didact.spec import FinetuneSpec, validate

_LOG = get_logger(__name__)


def finetune_each(
    specs: Sequence[FinetuneSpec],
    runs_dir: Path,
    at_once: int,
    parent_run_id: str | None = None,
    until: int | None = None,
) -> Iterator[tuple[int, str | None]]:
    """Run recipes to their ends, as they end; one that fails costs itself.

    Must be called within `ray_cluster`. With one at a time they run in this process, which shows how each goes on.

    Args:
        specs: each with a name of its own.
        runs_dir: where run folders lie.
        at_once: runs beside each other, each in a process of its own.
        parent_run_id: MLflow run that they belong to.
        until: optimizer steps after which each pauses; None for all.

    Yields:
        Index of a run that has ended, and what kept it from its end.
    """
    if at_once == 1:
        for place, spec in enumerate(specs):
            _LOG.info("run %d of %d: %s", place + 1, len(specs), spec.name)
            yield place, _attempt(spec, runs_dir, parent_run_id, until)
        return
    # Nothing is reserved for a run itself: its workers have their own reservation, and would else not fit.
    elsewhere = ray.remote(num_cpus=0, max_retries=0)(_elsewhere)
    left, begun = list(enumerate(specs)), dict[Any, int]()
    while left or begun:
        while left and len(begun) < at_once:
            place, spec = left.pop(0)
            _LOG.info("run %d of %d begins: %s", place + 1, len(specs), spec.name)
            begun[elsewhere.remote(spec.model_dump(mode="json"), str(runs_dir), parent_run_id, until)] = place
        (ended, *_), _ = ray.wait(list(begun), num_returns=1)
        yield begun.pop(ended), _outcome(ended)


def _attempt(spec: FinetuneSpec, runs_dir: Path, parent_run_id: str | None, until: int | None) -> str | None:
    try:
        finetune(spec, runs_dir, parent_run_id=parent_run_id, until=until)
    except DidactError as error:
        return f"{type(error).__name__}: {error}"
    return None


def _elsewhere(values: dict[str, Any], runs_dir: str, parent_run_id: str | None, until: int | None) -> str | None:
    receive()
    return _attempt(validate(FinetuneSpec, values, "run"), Path(runs_dir), parent_run_id, until)


def _outcome(ended: Any) -> str | None:
    try:
        told: str | None = ray.get(ended)
    except ray.exceptions.RayError as error:
        return str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    return told
