"""The loop on one worker: batches in, checkpoints and step reports out. Ray-free.

    model + StepLoader -> train -> CheckpointStore (resumable) and Callbacks (numbers)

Example:
    >>> from pathlib import Path
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(
    ...     vocab_size=49152, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    ... )
    >>> from didact.models import load_tokenizer
    >>> from didact.preparation import prepare_data
    >>> from didact.spec import FinetuneSpec, ModelSpec, validate
    >>> from didact.training import CheckpointStore, train, trainable_model
    >>> LlamaForCausalLM(config).save_pretrained("tiny")
    >>> _ = load_tokenizer(ModelSpec()).save_pretrained("tiny")
    >>> sums = {"name": "sums", "path": "reasoning-gym:chain_sum", "max_rows": 40}
    >>> recipe = {"name": "sums", "model": {"base": "tiny"}, "data": {"sources": [sums]}, "training": {"steps": 3}}
    >>> spec = validate(FinetuneSpec, recipe, "example")
    >>> prepared = prepare_data(spec)
    >>> model, packing = trainable_model(spec, prepared.num_steps, torch.device("cpu"))
    >>> loader = prepared.loader(spec, packing=packing)
    >>> checkpoints = CheckpointStore(Path("checkpoints"), keep=2, identity="example")
    >>> result = train(model, loader, spec.training, num_steps=3, compute_dtype=torch.float32, checkpoints=checkpoints)
    >>> checkpoints.newest().step
    3
"""

from didact.training.callbacks import Callback, StepReport
from didact.training.checkpoints import Checkpoint, CheckpointStore
from didact.training.course import TrainResult
from didact.training.faults import FaultInjection
from didact.training.loop import train
from didact.training.objective import Objective
from didact.training.rates import learning_rate
from didact.training.sharding import whole_weights
from didact.training.state import TrainedState
from didact.training.trainable import check_devices, resolve_packing, resolve_sharing, trainable_model
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
    "resolve_sharing",
    "train",
    "trainable_model",
    "whole_weights",
]
