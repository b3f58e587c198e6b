"""What training has changed, in the one form that checkpoints keep: whole tensors by parameter name."""

from dataclasses import dataclass

import torch

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of one parameter."""


@dataclass(frozen=True, slots=True)
class TrainedState:
    """Trained weights and AdamW's moments, on the CPU. The same whatever the number of workers or the sharding."""

    weights: dict[str, torch.Tensor]
    """By the parameter's name in the model."""
    moments: dict[str, torch.Tensor]
    """By `{moment}.{name}`; `step` is a float32 scalar, the others have the parameter's shape."""


def on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as safetensors wants it."""
    return tensor.detach().cpu().contiguous()
