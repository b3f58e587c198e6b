"""Rows scored by the base on the cluster: as many workers as a run has, or as there is room for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError
from ray.util import ActorPool

from didact.capacity import WorkerResources
from didact.cluster.placement import room_for_workers, worker_resources
from didact.connect import ray_cluster
from didact.connect.pool import begin_actor
from didact.devices import is_out_of_memory, memory_words
from didact.errors import OutOfMemory, RunError
from didact.logs import kept_file
from didact.preparation import ScoreJob, ScoringModel
from didact.spec import FinetuneSpec

_RESTARTS = 2


def score_on_ray(jobs: Sequence[ScoreJob], spec: FinetuneSpec) -> Iterator[int]:
    """Do jobs on workers placed as the recipe's own; each holds the base once. One that dies is started again.

    The cache (`DIDACT_CACHE`) must be at a path that every node sees.

    Raises:
        PlacementError: no worker fits on the cluster.
        OutOfMemory: the base and a batch of samples do not fit on a worker.
        RunError: workers died again and again.
    """
    with ray_cluster():
        resources = worker_resources(spec.placement)
        number = min(len(jobs), room_for_workers(spec.placement, resources))
        workers = [_start(spec, resources) for _ in range(number)]
        try:
            yield from ActorPool(workers).map_unordered(lambda worker, job: worker.score.remote(job), jobs)
        except RayTaskError as error:
            raise error.cause from error
        except RayActorError as error:
            raise RunError(f"a worker that scored rows ended {_RESTARTS + 1} times: {error}") from error
        finally:
            for worker in workers:
                ray.kill(worker)


def _start(spec: FinetuneSpec, resources: WorkerResources) -> "ray.actor.ActorHandle[_Worker]":
    return (
        ray.remote(_Worker)
        .options(**resources.actor_options(), max_restarts=_RESTARTS, max_task_retries=_RESTARTS)
        .remote(spec, resources, kept_file())
    )


class _Worker:
    """The base in memory, in a process of its own; loaded by the first job, as errors of `__init__` are Ray's."""

    def __init__(self, spec: FinetuneSpec, resources: WorkerResources, log: Path | None) -> None:
        begin_actor(log)
        self._spec, self._device = spec, torch.device("cuda" if resources.use_gpu else "cpu")
        if not resources.use_gpu:
            torch.set_num_threads(resources.num_cpus)
        self._model: ScoringModel | None = None

    def score(self, job: ScoreJob) -> int:
        try:
            self._model = self._model or ScoringModel(self._spec, self._device)
            return self._model.score(job)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            advice = "set tokens.max_length lower, or model.quantization"
            raise OutOfMemory(f"scoring rows is {memory_words(error, self._device)}; {advice}") from error
