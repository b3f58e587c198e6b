"""Join a Ray cluster, or start one on this machine, so that workers find this very code."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from didact import env
from didact.capacity import OWN_RAY
from didact.connect.address import check_ray
from didact.connect.environment import runtime_env
from didact.connect.forking import forking
from didact.connect.handover import hand_over, new_key, take_back
from didact.connect.orphans import freeing_orphans
from didact.errors import ClusterError
from didact.interrupts import own_handlers
from didact.logs import get_logger

_LOG = get_logger(__name__)
_NO_PRESTART = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
"""A worker for each CPU, without our environment: nothing of ours could run in it."""
_ON_OWN_RAY = {
    # Nobody takes this machine away from itself, and the watcher is one process more for every training.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Ray Train looks every two seconds whether its workers have ended; here it costs next to nothing.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
}


@contextlib.contextmanager
def ray_cluster(*, num_cpus: int | None = None, num_gpus: int | None = None) -> Iterator[None]:
    """Be connected to Ray inside the block.

    A connection that exists is used and left alone; otherwise the cluster at `RAY_ADDRESS` is joined (as inside a Ray
    job), or a local one is started and stopped again.

    Args:
        num_cpus: CPUs of a local cluster; default: the machine's.
        num_gpus: its GPUs; default: the machine's.
    """
    if ray.is_initialized():
        yield
        return
    key = new_key()
    environment = runtime_env(key)
    if env.ray_address() is None:
        environment["env_vars"] |= _ON_OWN_RAY
    join_ray(environment, num_cpus=num_cpus, num_gpus=num_gpus, forked=environment["env_vars"])
    try:
        hand_over(key)
        try:
            with freeing_orphans():
                yield
        finally:
            take_back(key)
    finally:
        ray.shutdown()


def join_ray(
    environment: dict[str, Any] | None = None,
    *,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    log_to_driver: bool = False,
    forked: Mapping[str, str] | None = None,
) -> None:
    """Connect this process to the cluster at `RAY_ADDRESS`, else to a local one that it starts.

    Args:
        environment: of all workers that get none of their own; see `runtime_env`.
        num_cpus: CPUs of a local cluster; default: the machine's.
        num_gpus: its GPUs; default: the machine's.
        log_to_driver: whether workers' lines are printed here.
        forked: variables of the workers that a local Ray forks; see `forking`. None: it forks none.

    Raises:
        ClusterError, PlacementError: see `check_ray`.
    """
    check_ray()
    address = env.ray_address()
    words = {"log_to_driver": log_to_driver, "logging_level": "warning", "runtime_env": environment}
    if address is not None:
        try:
            with own_handlers():
                ray.init(address=address, **words)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            said = " ".join(str(error.__cause__ or error).split())
            raise ClusterError(f"the Ray at RAY_ADDRESS={address} cannot be joined: {said}") from error
        return
    _LOG.info("starting a local Ray")
    try:
        with own_handlers(), contextlib.nullcontext() if forked is None else forking(forked):
            # "local": never some other Ray that happens to run on this machine
            own = {"labels": OWN_RAY, "include_dashboard": False, "_system_config": _NO_PRESTART}
            ray.init(address="local", num_cpus=num_cpus, num_gpus=num_gpus, **own, **words)
    except Exception as error:
        if "timed out during startup" not in str(error):  # what Ray raises then is of no class of its own
            raise
        raise ClusterError(
            "the local Ray did not start in the 30 seconds that it gives itself; this machine is too busy, try again"
        ) from error


def ray_logs() -> Path:
    """Where Ray, and the workers on this machine, write what is not shown, once this process is connected."""
    return Path(ray._private.worker._global_node.get_logs_dir_path())
