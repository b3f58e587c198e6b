"""What a worker needs, and whether the cluster has it."""

from dataclasses import dataclass

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from didact.errors import PlacementError
from didact.spec import PlacementSpec

_PROBE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """Resources of one worker, resolved against the connected cluster."""

    num_cpus: int
    use_gpu: bool
    accelerator_type: str | None

    def bundle(self) -> dict[str, float]:
        """As Ray writes it."""
        bundle: dict[str, float] = {"CPU": self.num_cpus}
        if self.use_gpu:
            bundle["GPU"] = 1
        if self.accelerator_type:
            bundle[f"accelerator_type:{self.accelerator_type}"] = 0.001
        return bundle


def worker_resources(spec: PlacementSpec) -> WorkerResources:
    """Resolve `device: auto`: a GPU per worker when the cluster has any."""
    has_gpu = ray.cluster_resources().get("GPU", 0) > 0
    use_gpu = spec.device == "gpu" or (spec.device == "auto" and has_gpu)
    return WorkerResources(spec.cpus_per_worker, use_gpu, spec.accelerator_type)


def room_for_workers(spec: PlacementSpec, resources: WorkerResources) -> int:
    """How many workers to start: all of `num_workers`, or of a range as many as fit now.

    An autoscaling cluster is asked to grow and given time. Ray Train itself waits for ever for workers that cannot be
    placed; this makes it a clear error.

    Raises:
        PlacementError: the least number does not fit within `placement.start_timeout_seconds`; says what was asked and
            what there is.
    """
    fewest, most = spec.min_workers, spec.max_workers
    if not fits(fewest, resources, spec.start_timeout_seconds):
        raise PlacementError(_no_room(spec, resources))
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


def _no_room(spec: PlacementSpec, resources: WorkerResources) -> str:
    asked = {"CPU", *resources.bundle()}
    there = {name: value for name, value in ray.cluster_resources().items() if name in asked}
    free = {name: ray.available_resources().get(name, 0) for name in there}
    return (
        f"no room for {spec.min_workers} workers with {resources.bundle()} each within "
        f"{spec.start_timeout_seconds:g} s (placement.start_timeout_seconds); the cluster has {there}, free {free}. "
        "Lower placement.num_workers or placement.cpus_per_worker, or add nodes"
    )
