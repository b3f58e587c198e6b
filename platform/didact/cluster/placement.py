"""What a worker needs, and whether the cluster has it."""

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from didact import env
from didact.capacity import Cluster, WorkerResources, asked_in_words
from didact.errors import PlacementError
from didact.logs import get_logger
from didact.spec import PlacementSpec

_LOG = get_logger(__name__)
_PROBE_SECONDS = 2.0
_FIELDS = {
    "CPU": "placement.cpus_per_worker",
    "GPU": "placement.device",
    "accelerator_type": "placement.accelerator_type",
    "number": "placement.num_workers",
}


def connected_cluster() -> Cluster:
    """The nodes of the Ray that this process is connected to, and what is known of those to come."""
    return Cluster.of(ray.nodes(), env.launcher_file())


def worker_resources(spec: PlacementSpec) -> WorkerResources:
    """Resolve `device: auto`: a GPU per worker when the cluster has any, or may start a node that has."""
    asked = spec.device == "gpu" or spec.accelerator_type is not None
    use_gpu = asked or (spec.device == "auto" and connected_cluster().has_gpus())
    return WorkerResources(spec.cpus_per_worker, use_gpu, spec.accelerator_type)


def check_room(spec: PlacementSpec, resources: WorkerResources) -> None:
    """Nothing, where the least number of workers fits on the cluster, or may once it has grown.

    Raises:
        PlacementError: it never will; says what was asked, what there is and which field to change.
    """
    shortage = connected_cluster().lasting_shortage(resources.bundle(), spec.min_workers)
    if shortage is not None:
        raise PlacementError(_no_room(spec, resources, shortage.resource, shortage.words))


def runs_at_once(spec: PlacementSpec) -> int:
    """How many runs' workers the cluster holds at once, when it has grown; at least one, which then waits for nodes.

    Raises:
        PlacementError: not even one run's workers will ever fit.
    """
    resources = worker_resources(spec)
    check_room(spec, resources)
    return max(1, connected_cluster().most(resources.bundle()) // spec.max_workers)


def room_for_workers(spec: PlacementSpec, resources: WorkerResources) -> int:
    """How many workers to start: all of `num_workers`, or of a range as many as fit now.

    What can never be placed is refused at once. A cluster that may grow is asked to and given time. Ray Train itself
    waits for ever for workers that cannot be placed; this makes it a clear error.

    Raises:
        PlacementError: the least number does not fit within `placement.start_timeout_seconds`, or never will.
    """
    check_room(spec, resources)
    fewest, most = spec.min_workers, spec.max_workers
    missing = connected_cluster().shortage(resources.bundle(), fewest)
    if missing is not None:
        _LOG.warning(
            "waiting up to %g s for nodes: %s. The cluster has %s",
            spec.start_timeout_seconds,
            missing.words,
            connected_cluster(),
        )
    if not fits(fewest, resources, spec.start_timeout_seconds):
        missing = connected_cluster().shortage(resources.bundle(), fewest)
        words = missing.words if missing else "other work holds what it has"
        waited = f"{words}, after {spec.start_timeout_seconds:g} s (placement.start_timeout_seconds)"
        raise PlacementError(_no_room(spec, resources, missing.resource if missing else "number", waited))
    while fewest < most:  # the largest number that fits, by bisection
        middle = (fewest + most + 1) // 2
        if fits(middle, resources, _PROBE_SECONDS):
            fewest = middle
        else:
            most = middle - 1
    return fewest


def fits(num_workers: int, resources: WorkerResources, timeout_seconds: float) -> bool:
    """Whether so many workers can be placed, by placing and removing empty ones."""
    group = placement_group([resources.bundle()] * num_workers, strategy="PACK")
    try:
        return bool(group.wait(timeout_seconds=timeout_seconds))
    finally:
        remove_placement_group(group)


def _no_room(spec: PlacementSpec, resources: WorkerResources, resource: str, words: str) -> str:
    asked = asked_in_words(resources.bundle(), spec.min_workers)
    return (
        f"no room for {asked}: {words}. The cluster has {connected_cluster()}. Change {_FIELDS[resource]} or add nodes"
    )
