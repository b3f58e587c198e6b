"""Who has runs trained by a worker that is kept: begun when the first asks for it, told each attempt, ended."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from typing_extensions import override

from didact.capacity import WorkerResources
from didact.cluster.kept.decisions import Decisions, RunLeft
from didact.cluster.placement import room_for_workers
from didact.cluster.stopping import listen
from didact.cluster.train import Attempt, WorkerGroup, worker_config
from didact.connect.pool import begin_actor
from didact.errors import WorkersLost
from didact.runs import Run
from didact.spec import FinetuneSpec, PlacementSpec
from didact.training import TrainResult

_CALLS_AT_ONCE = 8
"""Training, the question for its next measurement, and whether it still answers are calls beside each other."""


def can_be_kept(spec: FinetuneSpec) -> bool:
    """Whether a run's worker may have trained another run before: where it is alone, and cuts no weights."""
    return spec.placement.max_workers == 1 and spec.training.sharding.strategy == "ddp"


class KeptActor:
    """The worker as an actor. Whoever asks it loads the types in the signatures of its methods, so these are plain."""

    def __init__(self) -> None:
        begin_actor(None)
        listen()
        self._decisions = Decisions()
        self._training = threading.Lock()

    def expect(self) -> None:
        """A run comes: what is asked from now on is of that."""
        self._decisions = Decisions()

    def train(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Train a run from its newest checkpoint on; what `train_next` returns, None when it was left."""
        with self._training:
            try:
                from didact.cluster.kept.worker import train_next  # here: it loads PyTorch

                return train_next(config, self._decisions)
            except RunLeft:
                return None
            finally:
                self._decisions.end()

    def measurement(self) -> dict[str, Any] | None:
        """The next measurement, asking for which lets the run go on; None when it is over."""
        return self._decisions.ask()

    def leave(self) -> None:
        """End the run that waits for a decision; returns when it has ended."""
        self._decisions.end()
        with self._training:
            pass

    def answers(self) -> bool:
        """Whether this process is alive."""
        return True


class KeptWorker:
    """One worker for runs that come one after the other; `end` it, or it ends with this process."""

    def __init__(self) -> None:
        self._actor: Any = None
        self._resources: WorkerResources | None = None

    def for_run(self, measured: Callable[[dict[str, Any]], object] = lambda told: None) -> "KeptGroup":
        """What trains a run by this worker.

        Args:
            measured: told the metrics of a step with its number (`step`); the run goes on when it returns, and is ended
                where it is when it raises anything.
        """
        return KeptGroup(self, measured)

    def has(self, resources: WorkerResources) -> bool:
        """Whether it is there, with such resources."""
        return self._actor is not None and self._resources == resources

    def begun(self, resources: WorkerResources) -> Any:
        """Its actor."""
        if not self.has(resources):
            self.end()
            # Not within the reservation of a Tune trial, which is for its process alone.
            outside = PlacementGroupSchedulingStrategy(placement_group=None)
            options = {**resources.actor_options(), "max_concurrency": _CALLS_AT_ONCE, "scheduling_strategy": outside}
            self._actor, self._resources = ray.remote(KeptActor).options(**options).remote(), resources
        return self._actor

    def end(self) -> None:
        """End its process; the next run begins another one."""
        if self._actor is not None:
            with contextlib.suppress(Exception):  # whatever it is, it is gone
                ray.kill(self._actor)
        self._actor = None


@dataclass(frozen=True, slots=True)
class KeptGroup(WorkerGroup):
    """Trains the attempts of one run, which `can_be_kept`."""

    worker: KeptWorker
    measured: Callable[[dict[str, Any]], object]

    @override
    def room(self, placement: PlacementSpec, resources: WorkerResources) -> int:
        if self.worker.has(resources):
            return 1
        self.worker.end()
        return room_for_workers(placement, resources)

    @override
    def train(self, run: Run, spec: FinetuneSpec, resources: WorkerResources, attempt: Attempt) -> TrainResult:
        actor, patience = self.worker.begun(resources), spec.placement.hang_timeout_seconds
        told: dict[str, Any] | None = {}
        try:
            _answer(actor, actor.expect.remote(), patience + spec.placement.start_timeout_seconds)
            ended = actor.train.remote(worker_config(run, resources, attempt))
            while (told := _answer(actor, actor.measurement.remote(), patience)) is not None:
                self.measured(told)
            done = _answer(actor, ended, patience)
            if done["is_asked_to_stop"]:
                self.worker.end()
            return TrainResult(**done["result"])
        except RayTaskError as error:
            raise WorkerGroupError(str(error), {0: error.cause}) from error
        except (RayActorError, OutOfMemoryError, WorkersLost) as error:
            told = None
            self.worker.end()
            raise WorkerGroupError(str(error), {0: error}) from error
        finally:
            if told is not None:  # whoever decides wants no more of the run
                with contextlib.suppress(RayActorError):
                    _answer(actor, actor.leave.remote(), patience)

    @override
    def make_room(self) -> None:
        self.worker.end()


def _answer(actor: Any, asked: Any, patience_seconds: float) -> Any:
    """What was asked for, however long it takes, as long as the process answers at all.

    Raises:
        WorkersLost: it does not.
    """
    while not ray.wait([asked], timeout=patience_seconds)[0]:
        if not ray.wait([actor.answers.remote()], timeout=patience_seconds)[0]:
            raise WorkersLost(
                f"the worker has not answered for {patience_seconds:g} s (placement.hang_timeout_seconds)"
            )
    return ray.get(asked)
