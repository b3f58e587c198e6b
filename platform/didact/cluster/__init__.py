"""Placing work on Ray. With serving and tuning the only rooms that know it.

    FinetuneSpec -> finetune -> (Ray Train workers, evaluation tasks) -> FinetuneResult: adapter, report, version

Example:
    >>> from pathlib import Path
    >>> from didact.cluster import is_trained
    >>> from didact.runs import start_run
    >>> from didact.spec import FinetuneSpec, load_spec
    >>> spec = load_spec(FinetuneSpec, "jobs/recipes/demo.yaml")
    >>> is_trained(start_run(spec, Path("runs")), spec)  # `finetune(spec)` trains it, evaluates and registers it
    False
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.capacity import WorkerResources
    from didact.cluster.attempts import train_to_the_end
    from didact.cluster.evaluate import evaluate_adapter, evaluate_on_ray
    from didact.cluster.finetuning import FinetuneResult, finetune, has_trained, is_trained
    from didact.cluster.fused.asking import FUSED_AT_ONCE, end_in_group, fused_worker, train_in_group
    from didact.cluster.kept.asking import KeptWorker, can_be_kept
    from didact.cluster.placement import (
        check_room,
        connected_cluster,
        room_for_workers,
        runs_at_once,
        worker_resources,
    )
    from didact.cluster.preparing.parts import WORTH_RAY_BYTES, ray_runner, run_on_ray
    from didact.cluster.preparing.scores import score_on_ray
    from didact.cluster.several import finetune_each, train_together
    from didact.cluster.train import OwnWorkers
    from didact.connect import SOURCE_ROOT, ray_cluster, runtime_env

__all__ = [
    "FUSED_AT_ONCE",
    "SOURCE_ROOT",
    "WORTH_RAY_BYTES",
    "FinetuneResult",
    "KeptWorker",
    "OwnWorkers",
    "WorkerResources",
    "can_be_kept",
    "check_room",
    "connected_cluster",
    "end_in_group",
    "evaluate_adapter",
    "evaluate_on_ray",
    "finetune",
    "finetune_each",
    "fused_worker",
    "has_trained",
    "is_trained",
    "ray_cluster",
    "ray_runner",
    "room_for_workers",
    "run_on_ray",
    "runs_at_once",
    "runtime_env",
    "score_on_ray",
    "train_in_group",
    "train_to_the_end",
    "train_together",
    "worker_resources",
]

__getattr__ = lazily(__name__)
