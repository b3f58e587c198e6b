"""Runs trained together on one base by one worker: an actor that holds the base, asked by the process of each run.

    fused_worker -> FusedWorker -> join, next, next, ... until a run has ended, or leave

The worker takes a step when no run waits for the answer to a measurement: so whoever ends runs early decides before
anything more is computed. The first step waits for the runs that are to begin together.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from didact.capacity import WorkerResources
from didact.cluster.callbacks import Measurements, RunRecord
from didact.cluster.failures import explained
from didact.cluster.placement import check_room, worker_resources
from didact.cluster.worker import computing_on, export, held_out_losses, run_identity, settle_dtype
from didact.connect.pool import begin_actor
from didact.errors import DidactError, RunError, WorkersLost
from didact.evaluation import task_texts
from didact.files import append_jsonl
from didact.preparation import PreparedData, open_prepared
from didact.runs import Run, open_run
from didact.spec import FinetuneSpec, PlacementSpec
from didact.tracking import last_attempt
from didact.training import CheckpointStore, TrainResult, World, check_devices
from didact.training.fused import FusedTrial, FusedTrials

FUSED_AT_ONCE = 8
"""Runs that are trained together where nobody says how many."""
_CALLS_AT_ONCE = 256
"""Runs wait in calls of their own."""
_EVALUATION_BATCH = 8
_GATHERING_SECONDS = 60.0
_LOOK_SECONDS = 5.0

Told = dict[str, Any] | TrainResult | DidactError
"""What there is to tell a run's process: a measurement, how the run has ended, or why it failed."""


@dataclass(slots=True)
class _Member:
    """A run that is trained here."""

    run: Run
    spec: FinetuneSpec
    prepared: PreparedData
    told: deque[Told] = field(default_factory=deque)


class FusedWorker:
    """Its methods may be called from any thread; one thread of its own computes."""

    def __init__(self, resources: WorkerResources, together: int = 1, log: Path | None = None) -> None:
        """
        Args:
            resources: what it was given.
            together: runs that begin together: the first step waits until so many have come, or a minute.
            log: what it writes down; None where nothing.
        """
        begin_actor(log)
        self._resources, self._together = resources, together
        self._begins_by = math.inf
        self._device = torch.device("cuda", 0) if resources.use_gpu else torch.device("cpu")
        self._thread = ThreadPoolExecutor(1, initializer=self._set_threads)
        self._changed = threading.Condition()
        self._group: FusedTrials | None = None  # of the thread that computes
        # What follows is changed with the condition held.
        self._members: dict[str, _Member] = {}
        self._come: set[str] = set()
        self._undecided: set[str] = set()
        self._gone: set[str] = set()
        self._asked = False

    def join(self, folder: str, attempt: int, allow_fresh: bool) -> None:
        """Train a run from its newest checkpoint on.

        Args:
            folder: of the run, prepared.
            attempt: number written into its step records.
            allow_fresh: start from the base when no checkpoint verifies.

        Raises:
            RunError: it has left before it came.
            DidactError: whatever keeps it from being trained here.
        """
        run = open_run(Path(folder))
        try:
            self._compute(lambda: self._begin(run, attempt, allow_fresh)).result()
        finally:
            self._has_come(run.name)
            self._go_on()

    def next(self, name: str) -> Told:
        """Wait for what is next to be known of a run; by asking for more, its process lets it go on.

        Raises:
            RunError: the run has left.
        """
        with self._changed:
            self._undecided.discard(name)
        self._go_on()
        while not self._is_known(name):
            self._go_on()
        with self._changed:
            if name not in self._members:
                raise RunError(f"run {name!r} has left the worker that trains it with others")
            told = self._members[name].told.popleft()
            if isinstance(told, dict):
                self._undecided.add(name)
        if not isinstance(told, dict):
            self._compute(lambda: self._drop(name)).result()
        return told

    def leave(self, name: str) -> None:
        """End a run where it is, or have it never come."""
        with self._changed:
            self._gone.add(name)
        self._compute(lambda: self._drop(name)).result()
        self._has_come(name)
        self._go_on()

    def _has_come(self, name: str) -> None:
        with self._changed:
            self._come.add(name)
            self._begins_by = min(self._begins_by, time.monotonic() + _GATHERING_SECONDS)

    def _is_known(self, name: str) -> bool:
        """Whether there is something to tell of a run, waiting a while for it."""
        with self._changed:
            known = self._changed.wait_for(
                lambda: name not in self._members or self._members[name].told, timeout=_LOOK_SECONDS
            )
            return bool(known)

    def _compute(self, work: Callable[[], None]) -> "Future[None]":
        return self._thread.submit(work)

    def _set_threads(self) -> None:
        if not self._resources.use_gpu:
            torch.set_num_threads(self._resources.num_cpus)

    def _go_on(self) -> None:
        """Have the next step done, when nothing stands in its way."""
        with self._changed:
            if self._asked:
                return
            self._asked = True
        self._compute(self._step_when_ready)

    def _step_when_ready(self) -> None:
        with self._changed:
            self._asked = False
            gathering = len(self._come) < self._together and time.monotonic() < self._begins_by
            undecided = self._undecided or any(
                isinstance(told, dict) for member in self._members.values() for told in member.told
            )
        if self._group is not None and self._group.going and not (gathering or undecided):
            self._step(self._group)
            self._go_on()

    def _begin(self, run: Run, attempt: int, allow_fresh: bool) -> None:
        if run.name in self._gone:
            raise RunError(f"run {run.name!r} was ended before it had begun")
        spec, device = run.spec(), self._device
        check_devices(spec, device)
        prepared = open_prepared(run.prepared, spec, task_texts)
        settled = settle_dtype(spec, device)
        if self._group is None:
            self._group = FusedTrials.on(settled, device, max_tokens=longest_pass(settled))
        member = _Member(run, spec, prepared)
        batch_size = min(_EVALUATION_BATCH, spec.training.micro_batch_size)

        def evaluate(model: torch.nn.Module) -> dict[str, float]:
            return held_out_losses(model, prepared, World(), packing=True, device=device, batch_size=batch_size)

        checkpoints = CheckpointStore(
            run.checkpoints,
            keep=spec.training.keep_checkpoints,
            identity=run_identity(spec, prepared),
            allow_fresh=allow_fresh,
        )
        trial = FusedTrial(
            run.name,
            settled,
            prepared.loader(spec, packing=True),
            prepared.num_steps,
            checkpoints,
            [RunRecord(run, attempt), Measurements(member.told.append)],
            evaluate,
            run.start if spec.adapter.start else None,
        )
        if run.name in self._members:  # of a process that is gone
            self._drop(run.name)
        self._group.join(trial)
        append_jsonl(run.workers, {"attempt": attempt, "fused": True, **computing_on(settled, device, 1)})
        with self._changed:
            self._members[run.name] = member
        if run.name not in self._group.going:
            self._end(run.name)

    def _step(self, group: FusedTrials) -> None:
        before = group.going
        try:
            group.step()
            for name in before:
                if name not in group.going:
                    self._end(name)
        except Exception as error:  # noqa: BLE001 - whatever it is ends all of them, since they compute together
            own = explained(error, 0.0, self._device) if isinstance(error, MemoryError | RuntimeError) else None
            for name in before:
                group.failed[name] = own or RunError(f"{type(error).__name__}: {error}")
                self._tell(name, group.failed[name])
        with self._changed:
            self._changed.notify_all()

    def _end(self, name: str) -> None:
        """Save what a run that has no steps left has learned, and tell it."""
        group, member = self._group, self._members[name]
        assert group is not None
        try:
            result = group.result(name)
            with group.alone(name) as model:
                export(model, member.run, member.spec, member.prepared)
            self._tell(name, result)
        except DidactError as error:
            self._tell(name, error)

    def _tell(self, name: str, told: Told) -> None:
        with self._changed:
            self._members[name].told.append(told)
            self._changed.notify_all()

    def _drop(self, name: str) -> None:
        with self._changed:
            member = self._members.pop(name, None)
            self._undecided.discard(name)
            self._changed.notify_all()
        if member is not None and self._group is not None:
            self._group.leave(name)


@dataclass(frozen=True, slots=True)
class InGroup:
    """Trains a run on a `FusedWorker`, in the place of workers of its own."""

    worker: str
    """Name of the actor."""
    measured: Callable[[dict[str, Any]], object] = lambda _: None
    """Is told what was measured; the run goes on when it returns."""

    def __call__(self, run: Run, *, allow_fresh: bool) -> TrainResult:
        """Train until the run's last step.

        Raises:
            WorkersLost: the worker is gone.
            DidactError: what it says of this run.
        """
        try:
            actor = ray.get_actor(self.worker)
        except ValueError as error:  # Ray's word for an actor that is not there
            raise self._lost(run, error) from error
        try:
            ray.get(actor.join.remote(str(run.path), last_attempt(run.steps) + 1, allow_fresh))
            while True:
                told = ray.get(actor.next.remote(run.name))
                if isinstance(told, DidactError):
                    raise told
                if isinstance(told, TrainResult):
                    return told
                self.measured(told)
        except RayTaskError as error:
            if isinstance(error.cause, DidactError):
                raise error.cause from error
            raise
        except RayActorError as error:
            raise self._lost(run, error) from error

    def _lost(self, run: Run, error: Exception) -> WorkersLost:
        return WorkersLost(
            f"the worker that trains run {run.name!r} with others is gone: {error}. The same command goes on from the "
            "newest checkpoints"
        )


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
    actor = ray.remote(FusedWorker).options(**options).remote(resources, together, log)
    try:
        yield name
    finally:
        ray.kill(actor)


def end_in_group(worker: str, run: str) -> None:
    """Have a run leave the worker of that name, if it is still there: its process has ended, however."""
    with contextlib.suppress(ValueError, RayActorError):
        ray.get(ray.get_actor(worker).leave.remote(run))


def longest_pass(spec: FinetuneSpec) -> int:
    """Tokens of a shared pass: no more than one run alone may have in one, so that memory is bounded by the same."""
    return spec.training.micro_batch_size * spec.tokens.max_length
