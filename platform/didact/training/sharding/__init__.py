"""What of the model and its training state each worker holds. The loop knows only the `Sharding` protocol.

    model + TrainingSpec -> shard -> backward, sum_gradients, update each step -> TrainedState, whole tensors again

Example:
    >>> from didact.training.sharding import shard
    >>> sharding = shard(model, spec.training, spec.adapter, World.current())  # doctest: +SKIP
"""

from didact.training.sharding.protocol import Sharding
from didact.training.sharding.strategy import shard, whole_weights

__all__ = ["Sharding", "shard", "whole_weights"]
