"""Place a run's workers with Ray Train and wait for them."""

import uuid
from collections.abc import Callable
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from didact.cluster.placement import WorkerResources
from didact.errors import RunError
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.training import TrainResult


def train_on_ray(
    run: Run,
    spec: FinetuneSpec,
    resources: WorkerResources,
    *,
    attempt: int,
    callbacks: list[UserCallback] | None = None,
) -> TrainResult:
    """Train until the run's last step, restarting crashed workers from the newest checkpoint.

    Resuming is ours, not Ray's: workers take the newest checkpoint that verifies from the run folder, and each attempt
    gets a fresh name at Ray, whose own bookkeeping refuses to start when a file of it is damaged.

    Args:
        run: an opened run; its folder must be visible to every worker.
        spec: its recipe.
        resources: of one worker.
        attempt: number of this attempt, written into the step records.
        callbacks: of Ray Train, such as Tune's reporter.

    Raises:
        RunError: workers kept failing; names the first cause.
        DidactError: what the workers themselves said, such as TrainingDiverged.
    """
    trainer = TorchTrainer(
        _entry_point(),
        train_loop_config={"run": str(run.path), "attempt": attempt, "use_gpu": resources.use_gpu},
        torch_config=TorchConfig(backend="nccl" if resources.use_gpu else "gloo", timeout_s=1800),
        scaling_config=ScalingConfig(
            num_workers=spec.placement.num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={key: value for key, value in resources.bundle().items() if ":" not in key},
            accelerator_type=resources.accelerator_type,
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=f"attempt-{attempt}-{uuid.uuid4().hex[:8]}",
            storage_path=str(run.path / "ray"),
            failure_config=FailureConfig(max_failures=spec.placement.max_failures),
            callbacks=callbacks or [],
        ),
    )
    try:
        outcome: dict[str, Any] = trainer.fit().return_value
    except WorkerGroupError as error:
        rank, cause = next(iter(error.worker_failures.items()))
        raise RunError(
            f"training of run {run.name!r} failed on worker {rank} after {spec.placement.max_failures} restarts "
            f"(placement.max_failures): {_last_line(cause)}"
        ) from error
    except ControllerError as error:
        raise RunError(f"Ray Train could not run {run.name!r}: {_last_line(error)}") from error
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def _entry_point() -> Callable[[dict[str, Any]], dict[str, Any]]:
    def train_worker(config: dict[str, Any]) -> dict[str, Any]:
        # A nested function travels by value: Ray's controller, which only hands it on, imports neither torch nor us.
        from didact.cluster.worker import run_worker

        return run_worker(config)

    return train_worker


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
