"""What a worker needs, and whether the cluster has it."""

from dataclasses import dataclass

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from didact.errors import PlacementError
from didact.logs import get_logger
from didact.spec import PlacementSpec

_LOG = get_logger(__name__)


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


def wait_for_room(spec: PlacementSpec, resources: WorkerResources) -> None:
    """Return when all workers fit at once; an autoscaling cluster is asked to grow and given time.

    Ray Train itself waits for ever for workers that cannot be placed; this makes it a clear error.

    Raises:
        PlacementError: not within `placement.start_timeout_seconds`; says what was asked and what there is.
    """
    group = placement_group([resources.bundle()] * spec.num_workers, strategy="PACK")
    try:
        if group.wait(timeout_seconds=spec.start_timeout_seconds):
            return
    finally:
        remove_placement_group(group)
    asked = {"CPU", *resources.bundle()}
    there = {name: value for name, value in ray.cluster_resources().items() if name in asked}
    free = {name: ray.available_resources().get(name, 0) for name in there}
    raise PlacementError(
        f"no room for {spec.num_workers} workers with {resources.bundle()} each within "
        f"{spec.start_timeout_seconds:g} s (placement.start_timeout_seconds); the cluster has {there}, free {free}. "
        "Lower placement.num_workers or placement.cpus_per_worker, or add nodes"
    )
