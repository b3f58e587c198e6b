"""What the Ray that a run would join has, asked without joining it; where none is named, Ray is not even loaded."""

import sys

from didact import env
from didact.capacity import Cluster


def cluster_to_join() -> Cluster | None:
    """The nodes of the Ray at `RAY_ADDRESS`, or that this process is connected to; None where a run starts its own.

    Raises:
        ClusterError, PlacementError: see `check_ray`.
    """
    address = env.ray_address()
    if address is None and "ray" not in sys.modules:  # it takes a second to load
        return None
    import ray

    if ray.is_initialized():
        return Cluster.of(ray.nodes(), env.launcher_file())
    if address is None:
        return None
    from didact.connect.address import nodes_at

    return Cluster.of(nodes_at(address), env.launcher_file())
