"""How fast each parameter learns: the rate is a pure function of the step, so there is nothing to save or restore."""

import math

import torch

from didact.spec import LoraSpec, MethodSpec, TrainingSpec

_FACTOR = "rate_factor"


def learning_rate(step: int, num_steps: int, spec: TrainingSpec) -> float:
    """Learning rate of optimizer step `step` (from 0) of `num_steps`: linear warm-up, then the schedule's shape."""
    peak, warmup = spec.rate_at(step), spec.num_warmup_steps(num_steps)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, num_steps - warmup)
    if spec.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    if spec.schedule == "linear":
        return peak * (1 - progress)
    return peak


def parameter_groups(parameters: dict[str, torch.nn.Parameter], adapter: MethodSpec | None) -> list[dict[str, object]]:
    """AdamW's groups: one, or with LoRA+ the B matrices apart (Hayou et al., 2024).

    Args:
        parameters: the trained ones by name.
        adapter: the method; None for one group.
    """
    if not isinstance(adapter, LoraSpec) or adapter.lr_ratio_b == 1:
        return [{"params": list(parameters.values()), _FACTOR: 1.0}]
    fast = [parameter for name, parameter in parameters.items() if ".lora_B." in name]
    rest = [parameter for name, parameter in parameters.items() if ".lora_B." not in name]
    return [{"params": rest, _FACTOR: 1.0}, {"params": fast, _FACTOR: adapter.lr_ratio_b}]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_FACTOR]
