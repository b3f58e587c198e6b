"""Which parameters learn how fast."""

import torch

from didact.spec import LoraSpec, MethodSpec

_FACTOR = "rate_factor"


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
