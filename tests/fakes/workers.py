"""Processes of a gloo group, as Ray Train would start them, without Ray."""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.fakes.processes import forking, take_environment

_TIMEOUT = timedelta(minutes=5)
"""Workers that wait for each other in vain fail the test."""


def run_workers(work: Callable[..., None], folder: Path, *arguments: Any, num_workers: int = 2) -> None:
    """Call `work(*arguments)` in every process of a group.

    Raises:
        ProcessRaisedException: a worker failed; holds its traceback.
    """
    forking()  # sets what the fork server of this process loads, whoever asks it for processes
    shared = (dict(os.environ), num_workers, folder / f"group-{work.__name__}", work, arguments)
    mp.start_processes(_worker, shared, nprocs=num_workers, start_method="forkserver")


def _worker(
    rank: int,
    environment: dict[str, str],
    num_workers: int,
    meeting: Path,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    take_environment(environment)
    torch.set_num_threads(1)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_workers, timeout=_TIMEOUT
    )
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()
