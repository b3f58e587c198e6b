"""Preparation over a cluster: Ray Data hands the parts of a source to tasks that write into the shared cache."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

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
        parts = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=len(jobs))
        for done in parts.map(_task(encoder), num_cpus=1).iter_rows():
            if done["error"]:
                raise pickle.loads(done["error"])
            yield PartDone(done["rows"], done["rejected"], done["tokens"])


def run_where_it_pays(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    """Do a few jobs here, many on Ray: a part is tens of megabytes, and starting a cluster takes seconds."""
    return run_here(jobs, encoder) if len(jobs) < _FEWEST_JOBS else run_on_ray(jobs, encoder)


def _task(encoder: Encoder) -> Callable[[dict[str, Any]], dict[str, Any]]:
    held = pickle.dumps(encoder)

    def prepare_part(item: dict[str, Any]) -> dict[str, Any]:
        import pyarrow as pa

        pa.set_cpu_count(1)  # a task has one CPU, and the tokenizer's own threads are off in every worker
        # Errors that a second try cannot mend are returned: Ray Data would wrap what is raised and lose its type.
        try:
            return {**asdict(run_job(pickle.loads(item["job"]), pickle.loads(held))), "error": b""}
        except FileNotFoundError as error:
            found: DidactError = DataError(
                f"a node of the cluster does not see {error.filename}: sources and the cache (DIDACT_CACHE) must be at "
                "paths that all nodes share"
            )
        except DidactError as error:
            found = error
        return {"rows": 0, "rejected": 0, "tokens": 0, "error": pickle.dumps(found)}

    return prepare_part
