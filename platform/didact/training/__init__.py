"""The loop on one worker: batches in, checkpoints and step reports out. Ray-free.

    model + StepLoader -> train -> CheckpointStore (resumable) and Callbacks (numbers)

Example:
    >>> from didact.training import CheckpointStore, train
    >>> train(model, loader, spec.training, num_steps=60, compute_dtype=torch.bfloat16,
    ...       checkpoints=CheckpointStore(run.checkpoints, keep=2, identity=identity))  # doctest: +SKIP
"""

from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import Checkpoint, CheckpointStore
from didact.training.faults import FaultInjection
from didact.training.loop import TrainResult, train
from didact.training.objective import Objective
from didact.training.rates import learning_rate
from didact.training.sharding import whole_weights
from didact.training.state import TrainedState
from didact.training.trainable import check_devices, resolve_packing, trainable_model
from didact.training.world import World

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointStore",
    "FaultInjection",
    "Objective",
    "StepReport",
    "TrainResult",
    "TrainedState",
    "World",
    "check_devices",
    "learning_rate",
    "resolve_packing",
    "train",
    "trainable_model",
    "whole_weights",
]
