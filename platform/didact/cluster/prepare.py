"""Preparation over a cluster: Ray Data hands the parts of a source to tasks that write into the shared cache."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import cloudpickle
import ray
import ray.data

from didact.cluster.connect import ray_cluster
from didact.errors import DataError, DidactError
from didact.logs import get_logger
from didact.tokens import Encoder, PartDone, PartJob, run_here, run_job

_LOG = get_logger(__name__)
_FEWEST_JOBS = 4


def run_on_ray(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    """Do jobs as Ray Data tasks of one CPU each, all over the cluster; a task that its node loses is done again.

    The cache (`DIDACT_CACHE`) and the sources must be at paths that every node sees.

    Raises:
        DataError: a node does not see a file of the source.
        DidactError: as a job raises it.
    """
    with ray_cluster():
        settings = ray.data.DataContext.get_current()
        settings.enable_progress_bars = False
        # Which part is done first does not matter: the driver puts them in order.
        settings.execution_options.preserve_order = False
        parts = ray.data.from_items([{"job": cloudpickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
        try:
            for done in parts.map(_task(encoder), num_cpus=1).iter_rows():
                yield PartDone(**done)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error


def run_where_it_pays(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    """Do a few jobs here, many on Ray: a part is tens of megabytes, and starting a cluster takes seconds."""
    return run_here(jobs, encoder) if len(jobs) < _FEWEST_JOBS else run_on_ray(jobs, encoder)


def _task(encoder: Encoder) -> Callable[[dict[str, Any]], dict[str, int]]:
    held = cloudpickle.dumps(encoder)

    def prepare_part(item: dict[str, Any]) -> dict[str, int]:
        import pyarrow as pa

        pa.set_cpu_count(1)  # a task has one CPU, and the tokenizer's own threads are off in every worker
        return asdict(run_job(cloudpickle.loads(item["job"]), cloudpickle.loads(held)))

    return prepare_part


def _cause(error: BaseException) -> BaseException:
    """What a job raised, out of the layers that Ray puts around it."""
    found: BaseException | None = error
    while found is not None:
        inner = getattr(found, "cause", None) or found.__cause__
        if isinstance(found, DidactError):
            return found
        if isinstance(found, FileNotFoundError):
            return DataError(
                f"a node of the cluster does not see {found.filename}: sources and the cache (DIDACT_CACHE) must be at "
                "paths that all nodes share"
            )
        found = inner if inner is not found else None
    return error
