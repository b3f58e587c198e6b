"""Processes that are forked from one which has imported what they need: importing takes longer than most tests.

The one is a process of its own without threads (`multiprocessing`'s fork server), so nothing of the test is forked.
"""

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

_PRELOADED = [
    "didact.cluster.worker",
    "didact.preparation",
    "didact.registry.registry",
    "didact.training.sharding",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "tests.fakes.datasets",
]


def forking() -> ForkServerContext:
    """A context whose processes begin within milliseconds, once the first has begun."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


def begin(work: Callable[..., object], *arguments: Any) -> ForkServerProcess:
    """Call `work(*arguments)` in a process with the environment of this moment, which a fork server does not know."""
    process = forking().Process(target=_work, args=(dict(os.environ), work, arguments))
    process.start()
    return process


def take_environment(environment: Mapping[str, str]) -> None:
    """Have the variables of another process, and no others."""
    os.environ.clear()
    os.environ.update(environment)


def _work(environment: Mapping[str, str], work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    take_environment(environment)
    work(*arguments)
