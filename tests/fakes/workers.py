"""Processes of a gloo group, as Ray Train would start them, without Ray."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

_TIMEOUT = timedelta(minutes=5)
"""Workers that wait for each other in vain fail the test."""


def run_workers(work: Callable[..., None], folder: Path, *arguments: Any, num_workers: int = 2) -> None:
    """Call `work(*arguments)` in every process of a group.

    Raises:
        ProcessRaisedException: a worker failed; holds its traceback.
    """
    mp.spawn(_worker, (num_workers, folder / f"group-{work.__name__}", work, arguments), nprocs=num_workers)


def _worker(rank: int, num_workers: int, meeting: Path, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=num_workers, timeout=_TIMEOUT
    )
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()
