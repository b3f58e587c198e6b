"""Ray for this process: a cluster that runs already, or one of its own on this machine.

    RAY_ADDRESS, RAY_AUTH_MODE, TMPDIR -> check_ray -> ray_cluster -> workers that find this very code

`check_ray` says in a moment what `ray_cluster` would fail with after minutes; call it before anything takes long.
`cluster_to_join` says what a run would find there.

Example:
    >>> from didact.connect import check_ray
    >>> check_ray()
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.connect.address import check_ray
    from didact.connect.environment import SOURCE_ROOT, begin_early, runtime_env, worker_variables
    from didact.connect.handover import hand_over, new_key, receive, take_back
    from didact.connect.joining import join_ray, ray_cluster, ray_logs
    from didact.connect.named import cluster_to_join

__all__ = [
    "SOURCE_ROOT",
    "begin_early",
    "check_ray",
    "cluster_to_join",
    "hand_over",
    "join_ray",
    "new_key",
    "ray_cluster",
    "ray_logs",
    "receive",
    "runtime_env",
    "take_back",
    "worker_variables",
]

__getattr__ = lazily(__name__)
