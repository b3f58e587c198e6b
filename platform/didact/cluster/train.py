"""Place a run's workers with Ray Train and wait for them: one attempt."""

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import RayTrainCallback
from typing_extensions import override

from didact import env
from didact.capacity import WorkerResources
from didact.cluster.placement import room_for_workers
from didact.runs import Run
from didact.spec import FinetuneSpec, PlacementSpec
from didact.training import TrainResult


@dataclass(frozen=True, slots=True)
class Attempt:
    """What may differ between two attempts at one run."""

    number: int
    """Written into the step records."""
    num_workers: int
    micro_batch_size: int
    allow_fresh: bool
    """Start from the base when no checkpoint verifies."""
    until: int | None = None
    """Steps after which to save a checkpoint and end; None for all."""


@dataclass(frozen=True, slots=True)
class Workers:
    """A group of Ray Train workers."""

    number: int
    resources: WorkerResources
    """Of each."""
    backend: str
    """How they communicate, as torch names it."""


class WorkerGroup(Protocol):
    """Who trains a run's attempts."""

    def room(self, placement: PlacementSpec, resources: WorkerResources) -> int:
        """How many workers the next attempt has; errors as `room_for_workers`."""

    def train(self, run: Run, spec: FinetuneSpec, resources: WorkerResources, attempt: Attempt) -> TrainResult:
        """Train until the run's last step, or until told to stop; errors as `train_on_ray`."""

    def make_room(self) -> None:
        """Give back what it holds between attempts: other work of the run needs it."""


@dataclass(frozen=True, slots=True)
class OwnWorkers(WorkerGroup):
    """Workers of Ray Train, a new group for each attempt."""

    callbacks: tuple[UserCallback, ...] = ()
    """Of Ray Train, such as Tune's reporter."""

    @override
    def room(self, placement: PlacementSpec, resources: WorkerResources) -> int:
        return room_for_workers(placement, resources)

    @override
    def train(self, run: Run, spec: FinetuneSpec, resources: WorkerResources, attempt: Attempt) -> TrainResult:
        return train_on_ray(run, spec, resources, attempt, list(self.callbacks))

    @override
    def make_room(self) -> None:
        """It holds nothing."""


def worker_config(run: Run, resources: WorkerResources, attempt: Attempt) -> dict[str, Any]:
    """What each worker of an attempt is told, see `worker.run_worker`."""
    return {
        "run": str(run.path),
        "attempt": attempt.number,
        "micro_batch_size": attempt.micro_batch_size,
        "allow_fresh": attempt.allow_fresh,
        "until": attempt.until,
        "use_gpu": resources.use_gpu,
    }


def train_on_ray(
    run: Run,
    spec: FinetuneSpec,
    resources: WorkerResources,
    attempt: Attempt,
    callbacks: list[UserCallback] | None = None,
) -> TrainResult:
    """Train until the run's last step, until workers are told to stop, or until one fails.

    Resuming is ours, not Ray's: workers take the newest checkpoint that verifies from the run folder, and each attempt
    gets a fresh name at Ray, whose own bookkeeping refuses to start when a file of it is damaged. Restarting is ours as
    well: Ray would wait for ever for workers that no longer fit.

    Args:
        run: an opened run; its folder must be visible to every worker.
        spec: its recipe.
        resources: of one worker.
        attempt: which one.
        callbacks: of Ray Train, such as Tune's reporter.

    Raises:
        ray.train.TrainingFailedError: a worker failed; `failures.classify` says how.
    """
    told: dict[str, Any] = run_on_workers(
        _entry_point(),
        worker_config(run, resources, attempt),
        Workers(attempt.num_workers, resources, backend(spec, use_gpu=resources.use_gpu)),
        folder=run.path / "ray",
        name=f"attempt-{attempt.number}",
        patience_seconds=spec.placement.hang_timeout_seconds,
        callbacks=callbacks,
    )
    return TrainResult(**told)


def backend(spec: FinetuneSpec, *, use_gpu: bool) -> str:
    """How workers communicate: what FSDP keeps in main memory is gathered and measured there, which NCCL cannot do."""
    if not use_gpu:
        return "gloo"
    sharding = spec.training.sharding
    return "cpu:gloo,cuda:nccl" if sharding.strategy == "fsdp" and sharding.cpu_offload else "nccl"


def run_on_workers(
    work: Callable[[dict[str, Any]], Any],
    config: dict[str, Any],
    workers: Workers,
    *,
    folder: Path,
    name: str,
    patience_seconds: float,
    callbacks: list[UserCallback] | None = None,
) -> Any:
    """Call `work(config)` on every worker of a new group, once, and return what worker 0 returns.

    Args:
        work: any function; travels by value where it is a nested one.
        config: of plain values.
        workers: how many, with what.
        folder: for Ray's own state; every node sees it.
        name: of the group; a suffix makes it unique.
        patience_seconds: how long a collective operation, or an answer to Ray, may take.
        callbacks: of Ray Train.

    Raises:
        ray.train.TrainingFailedError: a worker failed; `failures.classify` says how.
    """
    resources = workers.resources
    trainer = _Trainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(backend=workers.backend, timeout_s=math.ceil(patience_seconds)),
        scaling_config=ScalingConfig(
            num_workers=workers.number,
            use_gpu=resources.use_gpu,
            resources_per_worker={key: value for key, value in resources.bundle().items() if ":" not in key},
            accelerator_type=resources.accelerator_type,
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=f"{name}-{uuid.uuid4().hex[:8]}",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
            callbacks=callbacks or [],
        ),
    )
    with env.setting("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", str(patience_seconds)):
        return trainer.fit().return_value


class _Trainer(TorchTrainer):
    """Leaves Ctrl-C to the command, which ends workers by ending Ray; Ray Train's own way may exit with code 0.

    Two processes that each run would have, and that import pandas for seconds, are not started: no data comes by Ray
    Data, and what a killed controller had reserved is given back by the driver (`connect.orphans`).
    """

    @override
    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks: list[RayTrainCallback] = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, DatasetsCallback | PlacementGroupCleanerCallback)]

    @override
    def _register_sigint_handler(self, controller: Any) -> None:
        pass


def _entry_point() -> Callable[[dict[str, Any]], dict[str, Any]]:
    def train_worker(config: dict[str, Any]) -> dict[str, Any]:
        # A nested function travels by value, and so do fields in place of our type: Ray's controller, which only hands
        # both on, would import torch, PEFT and us.
        from dataclasses import asdict

        from didact.cluster.worker import run_worker

        return asdict(run_worker(config))

    return train_worker
