"""Preparation over a cluster: Ray Data hands the parts of a source to tasks that write into the shared cache."""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import ray
import ray.data

from didact.connect import ray_cluster, receive
from didact.errors import DataError, DidactError, FileGone
from didact.preparation import Encoder, PartDone, PartJob, Runner, run_here, run_job
from didact.preparation.parts import received

WORTH_RAY_BYTES = 1 << 27
"""Starting a cluster and its workers takes as long as one process needs for some ten megabytes."""

_BATCH_BYTES = 1 << 25  # some ten seconds of one worker


def run_on_ray(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
    """Do jobs as Ray Data tasks of one CPU each, all over the cluster; a task that its node loses is done again.

    Tasks get many jobs at first and one at the end, the largest jobs first, so that no worker is left with work when
    the others have ended (Polychronopoulos and Kuck 1987, "Guided self-scheduling").

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
        workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        batches = guided(sorted(jobs, key=lambda job: -job.size), workers)
        rows = [{"jobs": pickle.dumps(batch)} for batch in batches]
        tasks = ray.data.from_items(rows, override_num_blocks=len(rows))
        for done in tasks.flat_map(_task(encoder), num_cpus=1).iter_rows():
            if done["error"]:
                raise pickle.loads(done["error"])
            yield PartDone(done["rows"], done["rejected"], done["tokens"])


def guided(jobs: Sequence[PartJob], workers: int) -> list[list[PartJob]]:
    """Jobs in the batches that idle workers take: each half of a worker's share of what is left, or `_BATCH_BYTES`.

    Ray Data looks every tenth of a second for tasks that ended, and a worker waits for one or two looks between two
    tasks. Batches that shrink cost few waits, and leave little at the end; none is long, since a cluster may grow.
    """
    left, batches, batch, size = sum(job.size for job in jobs), list[list[PartJob]](), list[PartJob](), 0
    for job in jobs:
        batch.append(job)
        size += job.size
        if size >= min(left / (2 * workers), _BATCH_BYTES):
            batches.append(batch)
            left, batch, size = left - size, [], 0
    return [*batches, batch] if batch else batches


@contextlib.contextmanager
def ray_runner(worth_bytes: int = 0, make_room: Callable[[], None] = lambda: None) -> Iterator[Runner]:
    """A runner that joins Ray, or starts it, with the first jobs that are worth it, and keeps it until the block ends.

    So a recipe of many sources waits once for workers to start.

    Args:
        worth_bytes: jobs that read less than this together are done in this process.
        make_room: called before jobs are given to Ray; gives back what would stand in their way.
    """
    with contextlib.ExitStack() as connected:

        def run(jobs: Sequence[PartJob], encoder: Encoder) -> Iterator[PartDone]:
            if sum(job.size for job in jobs) < worth_bytes or (worth_bytes and len(jobs) < 2):
                return run_here(jobs, encoder)
            make_room()
            connected.enter_context(ray_cluster())
            return run_on_ray(jobs, encoder)

        yield run


def _task(encoder: Encoder) -> Callable[[dict[str, Any]], Iterator[dict[str, Any]]]:
    held = pickle.dumps(encoder)

    def prepare_parts(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
        import pyarrow as pa

        pa.set_cpu_count(1)  # a task has one CPU, and the tokenizer's own threads are off in every worker
        receive()
        using = received(held)
        for job in pickle.loads(item["jobs"]):
            yield _done(job, using)

    return prepare_parts


def _done(job: PartJob, encoder: Encoder) -> dict[str, Any]:
    """What a job did; with the error that a second try cannot mend, which Ray Data would wrap if it were raised."""
    try:
        return {**asdict(run_job(job, encoder)), "error": b""}
    except (FileNotFoundError, FileGone) as error:
        found: DidactError = DataError(
            f"a node of the cluster does not see {error.filename}: sources and the cache (DIDACT_CACHE) must be at "
            "paths that all nodes share"
        )
    except DidactError as error:
        found = error
    return {"rows": 0, "rejected": 0, "tokens": 0, "error": pickle.dumps(found)}
