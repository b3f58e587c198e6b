"""What the worker that is kept does with each run."""

import gc
import sys
from dataclasses import asdict
from typing import Any

import torch

from didact.cluster.kept.decisions import Decisions, RunLeft
from didact.cluster.stopping import KeptStopRequest
from didact.cluster.worker import Contact, run_worker


def train_next(config: dict[str, Any], decisions: Decisions) -> dict[str, Any]:
    """Train a run as a worker of its own would, and leave nothing of it in memory.

    Args:
        config: as `run_worker` takes it.
        decisions: measurements wait for them.

    Returns:
        `result`, the fields of its `TrainResult`, and `is_asked_to_stop`: this process will end.

    Raises:
        RunLeft: somebody has decided that it is to end.
        DidactError: see `run_worker`.
    """
    stop = KeptStopRequest()

    def tell(measurement: dict[str, Any]) -> None:
        decisions.tell(measurement)
        if decisions.is_over:
            raise RunLeft(f"run {config['run']} was ended where it is")

    try:
        return {"result": asdict(run_worker(config, Contact(tell, stop))), "is_asked_to_stop": stop()}
    finally:
        _forget()


def _forget() -> None:
    """Free the run's memory. Code that was compiled for it goes too: PyTorch compiles each function a few times at
    most, for other modules, and no more after that, without a word."""
    if "torch._dynamo" in sys.modules:  # seconds to load
        torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
