"""Secrets of the driver's environment for workers, by way of the memory of the cluster's head.

    hand_over(key) in the driver; DIDACT_HANDED_OVER=key in the workers' environment -> receive() in each of them

Ray writes the variables of a `runtime_env` into logs that all users of a machine can read, so they hold the key only.
"""

import json
import uuid

import ray
from ray.experimental import internal_kv

from didact import env
from didact.logs import get_logger

_LOG = get_logger(__name__)
_NAMESPACE = b"didact"


def new_key() -> str:
    """A name for what is handed over."""
    return uuid.uuid4().hex


def hand_over(key: str) -> None:
    """Leave `env.private_for_workers` at the head of the Ray that this process is connected to."""
    content = json.dumps(env.private_for_workers()).encode()
    internal_kv._internal_kv_put(key.encode(), content, overwrite=True, namespace=_NAMESPACE)


def take_back(key: str) -> None:
    """Remove it. The head forgets it at its own end as well."""
    internal_kv._internal_kv_del(key.encode(), namespace=_NAMESPACE)


def receive() -> None:
    """Have what the driver handed over as this process's environment. First thing in every worker; repeats harmlessly.

    Outside workers there is nothing to receive.
    """
    key = env.handed_over()
    if key is None or not ray.is_initialized():
        return
    content = internal_kv._internal_kv_get(key.encode(), namespace=_NAMESPACE)
    if content is None:
        _LOG.warning("what the driver handed over is gone from the cluster's head; keys and tokens may be missing")
        return
    env.take(json.loads(content))
