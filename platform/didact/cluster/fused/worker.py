"""The worker that trains runs together on the base it holds, and takes each along its whole road in a thread.

    finetune -> Road -> join, next, next, ... until the run has ended, or leave

The worker takes a step when no run waits for the answer to a measurement: so whoever ends runs early decides before
anything more is computed. The first step waits for the runs that are to begin together.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from didact.capacity import WorkerResources
from didact.cluster.callbacks import Measurements, RunRecord
from didact.cluster.failures import explained
from didact.cluster.finetuning import finetune
from didact.cluster.kept.decisions import Decisions, RunLeft
from didact.cluster.worker import computing_on, export, held_out_losses, run_identity, settle_dtype
from didact.errors import DidactError, RunError
from didact.evaluation import task_texts
from didact.files import append_jsonl
from didact.preparation import PreparedData, open_prepared
from didact.runs import Run, open_run
from didact.spec import FinetuneSpec, validate
from didact.tracking import effective_records, last_attempt
from didact.training import CheckpointStore, TrainResult, World, check_devices
from didact.training.fused import FusedTrial, FusedTrials

_EVALUATION_BATCH = 8
_GATHERING_SECONDS = 60.0
_LOOK_SECONDS = 5.0

Told = dict[str, Any] | TrainResult | DidactError
"""What there is to tell of a run: a measurement, how it has ended, or why it failed."""


@dataclass(slots=True)
class _Member:
    """A run that is trained here."""

    run: Run
    spec: FinetuneSpec
    prepared: PreparedData
    told: deque[Told] = field(default_factory=deque)


class Road:
    """Has a run trained by the worker, and whoever is asked decides after each measurement whether it goes on."""

    def __init__(self, worker: "FusedWorker", changed: threading.Condition, *, is_asked: bool) -> None:
        """
        Args:
            worker: trains it.
            changed: of the worker, told when anything becomes known.
            is_asked: measurements wait for a decision.
        """
        self._worker, self._is_asked = worker, is_asked
        self.decisions = Decisions(changed)

    def __call__(self, run: Run, *, allow_fresh: bool) -> TrainResult:
        """Train until the run's last step, or until it is ended.

        Raises:
            DidactError: why it failed.
        """
        try:
            self._worker.join(str(run.path), last_attempt(run.steps) + 1, allow_fresh)
            while isinstance(told := self._worker.next(run.name), dict):
                if self._is_asked:
                    self.decisions.tell(told, is_ended=lambda: not self._worker.has(run.name))
        except RunLeft:
            return _so_far(run)
        if isinstance(told, DidactError):
            raise told
        return told


def _so_far(run: Run) -> TrainResult:
    """What a run that was ended has done."""
    done = effective_records(run.steps)
    if not done:
        return TrainResult(0, None, 0, 0.0)
    tokens = [each.metrics["train/tokens"] for each in done]
    seconds = sum(each.metrics["train/tokens"] / each.metrics["train/tokens_per_second"] for each in done)
    return TrainResult(done[-1].step, done[-1].metrics["train/loss"], int(sum(tokens)), seconds)


class FusedWorker:
    """Its methods may be called from any thread; one thread of its own computes."""

    def __init__(self, resources: WorkerResources, together: int = 1) -> None:
        """
        Args:
            resources: what it was given.
            together: runs that begin together: the first step waits until so many have come, or a minute.
        """
        self._resources, self._together = resources, together
        self._begins_by = math.inf
        self._device = torch.device("cuda", 0) if resources.use_gpu else torch.device("cpu")
        self._thread = ThreadPoolExecutor(1, initializer=self._set_threads)
        self.changed = threading.Condition()
        self._group: FusedTrials | None = None  # of the thread that computes
        # What follows is changed with the condition held.
        self._roads: dict[str, Road] = {}
        self._members: dict[str, _Member] = {}
        self._come: set[str] = set()
        self._undecided: set[str] = set()
        self._gone: set[str] = set()
        self._asked = False

    def train(self, values: dict[str, Any], runs_dir: str, parent_run_id: str | None, *, is_asked: bool) -> None:
        """Take a run along its whole road, as `finetune` does, trained here with the others.

        Args:
            values: of its recipe, with absolute paths.
            runs_dir: where run folders lie.
            parent_run_id: MLflow run that it belongs to.
            is_asked: each measurement waits for `measurement`, and the run goes on when that is called again.

        Raises:
            DidactError: whatever keeps it from its end.
        """
        road = Road(self, self.changed, is_asked=is_asked)
        with self.changed:
            self._roads[values["name"]] = road
            self.changed.notify_all()
        try:
            spec: FinetuneSpec = validate(FinetuneSpec, values, "run")
            finetune(spec, Path(runs_dir), parent_run_id=parent_run_id, group=road)
        finally:
            road.decisions.end()
            self._compute(lambda: self._drop(values["name"])).result()
            self._has_come(values["name"])  # or the others would wait for one that failed before it came
            self._go_on()

    def measurement(self, name: str) -> dict[str, Any] | None:
        """The next measurement of a run that is asked for them, once there is one; None when the run is over."""
        with self.changed:
            self.changed.wait_for(lambda: name in self._roads, timeout=_GATHERING_SECONDS)
            road = self._roads.get(name)
        return road.decisions.ask() if road is not None else None

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
        """Wait for what is next to be known of a run; by asking for more, who trains it lets it go on.

        Raises:
            RunError: the run has left.
        """
        with self.changed:
            self._undecided.discard(name)
        self._go_on()
        while not self._is_known(name):
            self._go_on()
        with self.changed:
            if name not in self._members:
                raise RunLeft(f"run {name!r} has left the worker that trains it with others")
            told = self._members[name].told.popleft()
            if isinstance(told, dict):
                self._undecided.add(name)
        if not isinstance(told, dict):
            self._compute(lambda: self._drop(name)).result()
        return told

    def leave(self, name: str) -> None:
        """End a run where it is, or have it never come."""
        with self.changed:
            self._gone.add(name)
        self._compute(lambda: self._drop(name)).result()
        self._has_come(name)
        self._go_on()

    def has(self, name: str) -> bool:
        """Whether a run is trained here, and has not been ended."""
        with self.changed:
            return name in self._members

    def _has_come(self, name: str) -> None:
        with self.changed:
            self._come.add(name)
            self._begins_by = min(self._begins_by, time.monotonic() + _GATHERING_SECONDS)

    def _is_known(self, name: str) -> bool:
        """Whether there is something to tell of a run, waiting a while for it."""
        with self.changed:
            known = self.changed.wait_for(
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
        with self.changed:
            if self._asked:
                return
            self._asked = True
        self._compute(self._step_when_ready)

    def _step_when_ready(self) -> None:
        with self.changed:
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
            raise RunLeft(f"run {run.name!r} was ended before it had begun")
        spec, device = run.spec(), self._device
        check_devices(spec, device)
        prepared = open_prepared(run.prepared, spec, task_texts)
        settled = settle_dtype(spec, device)
        if self._group is None:
            self._group = FusedTrials.on(settled, device, max_tokens=longest_pass(settled))
        member = _Member(run, spec, prepared)
        batch_size = min(_EVALUATION_BATCH, spec.training.micro_batch_size)
        shares = self._group.shares_prefixes and not getattr(spec.adapter, "dropout", 0.0)

        def evaluate(model: torch.nn.Module) -> dict[str, float]:
            return held_out_losses(
                model,
                prepared,
                World(),
                packing=True,
                device=device,
                batch_size=batch_size,
                share_prefixes=shares,
            )

        checkpoints = CheckpointStore(
            run.checkpoints,
            keep=spec.training.keep_checkpoints,
            identity=run_identity(spec, prepared),
            allow_fresh=allow_fresh,
        )
        trial = FusedTrial(
            run.name,
            settled,
            prepared.loader(spec, packing=True, share_prefixes=shares),
            prepared.num_steps,
            checkpoints,
            [RunRecord(run, attempt), Measurements(partial(self._measured, member))],
            evaluate,
            run.start if spec.adapter.start else None,
        )
        if run.name in self._members:  # of a process that is gone
            self._drop(run.name)
        self._group.join(trial)
        append_jsonl(run.workers, {"attempt": attempt, "fused": True, **computing_on(settled, device, 1)})
        with self.changed:
            self._members[run.name] = member
        if run.name not in self._group.going:
            self._end(run.name)

    def _measured(self, member: _Member, metrics: dict[str, Any]) -> None:
        member.told.append({"num_steps": member.prepared.num_steps, **metrics})

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
        with self.changed:
            self.changed.notify_all()

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
        with self.changed:
            self._members[name].told.append(told)
            self.changed.notify_all()

    def _drop(self, name: str) -> None:
        with self.changed:
            member = self._members.pop(name, None)
            self._undecided.discard(name)
            self.changed.notify_all()
        if member is not None and self._group is not None:
            self._group.leave(name)


def longest_pass(spec: FinetuneSpec) -> int:
    """Tokens of a shared pass: no more than one run alone may have in one, so that memory is bounded by the same."""
    return spec.training.micro_batch_size * spec.tokens.max_length
