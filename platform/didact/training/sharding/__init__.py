"""What of the model and its training state each worker holds. The loop knows only the `Sharding` protocol.

    model + TrainingSpec -> shard -> backward, sum_gradients, update each step -> TrainedState, whole tensors again

Example:
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.spec import LoraSpec, TrainingSpec
    >>> from didact.training import World
    >>> from didact.training.sharding import shard
    >>> sharding = shard(LlamaForCausalLM(config), TrainingSpec(steps=10), LoraSpec(), World(0, 1))
    >>> sharding.update(rate=1e-3, max_norm=1.0)  # no gradients yet
    0.0
"""

from didact.training.sharding.protocol import Sharding
from didact.training.sharding.strategy import shard, whole_weights

__all__ = ["Sharding", "shard", "whole_weights"]
