"""Several runs, one after the other or beside each other."""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from didact.cluster.finetuning import finetune
from didact.cluster.fused.asking import begin_in_group, end_of, fused_worker
from didact.cluster.kept.asking import KeptWorker, can_be_kept
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
    words = str(runs_dir), parent_run_id, until, can_share_workers(specs)
    if at_once == 1 and worker is None:
        here = _Taker(*words)
        try:
            for place, spec in enumerate(specs):
                _LOG.info("run %d of %d: %s", place + 1, len(specs), spec.name)
                yield place, here.take(spec)
        finally:
            here.end()
        return
    left, begun = list(enumerate(specs)), dict[Any, tuple[int, _Elsewhere | None]]()
    takers = [_Elsewhere(*words) for _ in range(0 if worker else min(at_once, len(specs)))]
    free, steps = list(takers), StepsOfRuns([Run(runs_dir / spec.name) for spec in specs], until)
    try:
        while left or begun:
            while left and len(begun) < at_once:
                place, spec = left.pop(0)
                _LOG.info("run %d of %d begins: %s", place + 1, len(specs), spec.name)
                if worker is not None:
                    begun[begin_in_group(worker, spec, runs_dir, parent_run_id)] = place, None
                else:
                    taker = free.pop()
                    begun[taker.begin(spec)] = place, taker
            while not (done := ray.wait(list(begun), num_returns=1, timeout=_TOLD_SECONDS)[0]):
                _LOG.info("%d of %d runs go on: %s", len(begun), len(specs), steps)
            place, ended = begun.pop(done[0])
            error = _outcome(done[0], specs[place].name, in_group=worker is not None)
            if ended is not None and left:
                free.append(ended)
            elif ended is not None:
                ended.end()
            yield place, error
    finally:
        for each in takers:
            each.end()


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


def can_share_workers(specs: Sequence[FinetuneSpec]) -> bool:
    """Whether runs may follow each other on workers that are kept.

    While such a worker waits for its next run it holds what a run with other workers might wait for.

    Args:
        specs: all of them.
    """
    return all(can_be_kept(spec) and spec.placement == specs[0].placement for spec in specs)


class _Taker:
    """Takes runs along their road one after the other."""

    def __init__(self, runs_dir: str, parent_run_id: str | None, until: int | None, keeps: bool) -> None:
        """`keeps`: all are trained by one worker."""
        self._runs_dir, self._parent_run_id, self._until = Path(runs_dir), parent_run_id, until
        self._worker = KeptWorker() if keeps else None

    def take(self, spec: FinetuneSpec) -> str | None:
        """What keeps a run from its end."""
        workers = self._worker.for_run() if self._worker else None
        try:
            finetune(spec, self._runs_dir, parent_run_id=self._parent_run_id, until=self._until, workers=workers)
        except DidactError as error:
            return _words(error)
        return None

    def end(self) -> None:
        """End its worker."""
        if self._worker:
            self._worker.end()


class _TakerActor:
    """A taker in a process of its own."""

    def __init__(self, *words: Any) -> None:
        receive()
        self._taker = _Taker(*words)

    def take(self, values: dict[str, Any]) -> str | None:
        return self._taker.take(validate(FinetuneSpec, values, "run"))


class _Elsewhere:
    """The process of a taker, begun with the first run, and anew with one after it was lost."""

    def __init__(self, *words: Any) -> None:
        """`words` are those of a taker."""
        self._words = words
        self._actor: Any = None
        self._asked: Any = None

    def begin(self, spec: FinetuneSpec) -> Any:
        """Ray's reference to what `take` says."""
        if self._actor is None or self._is_lost():
            # Nothing is reserved for a run itself: its worker has its own reservation, and would else not fit.
            self._actor = ray.remote(num_cpus=0)(_TakerActor).remote(*self._words)
        absolute = with_absolute_paths(spec)  # that process may have another working directory
        self._asked = self._actor.take.remote(absolute.model_dump(mode="json"))
        return self._asked

    def end(self) -> None:
        """End it, and its worker with it."""
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = None

    def _is_lost(self) -> bool:
        try:
            ray.get(self._asked)
        except ray.exceptions.RayActorError:
            return True
        except ray.exceptions.RayError:  # what a run raised was told by whoever waited for it
            return False
        return False


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
