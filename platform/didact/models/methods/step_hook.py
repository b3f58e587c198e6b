"""What a method does at every optimizer step besides being trained. Only AdaLoRA does anything."""

from typing import Protocol

import torch
from peft import PeftModel
from peft.tuners.adalora import AdaLoraModel
from typing_extensions import override

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_PATTERN = "rank_pattern"


class StepHook(Protocol):
    """Called by the loop around each optimizer step, on every worker alike."""

    def before_update(self) -> None:
        """After the gradients were summed over workers, before they are clipped."""

    def after_update(self, step: int) -> None:
        """After the optimizer's update number `step` (from 1), while gradients are still there."""

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold, besides parameters, for a resumed run to equal the unbroken one."""

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave."""


def step_hook(model: torch.nn.Module) -> StepHook:
    """The hook of a model's method."""
    tuner = model.base_model if isinstance(model, PeftModel) else None
    return RankSchedule(tuner) if isinstance(tuner, AdaLoraModel) else NoStepHook()


class NoStepHook(StepHook):
    """For methods that are their parameters and nothing else."""

    @override
    def before_update(self) -> None:
        pass

    @override
    def after_update(self, step: int) -> None:
        pass

    @override
    def state(self) -> dict[str, torch.Tensor]:
        return {}

    @override
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        pass


class RankSchedule(StepHook):
    """AdaLoRA's regulariser and its moving of ranks (Zhang et al., 2023, eq. 5 and algorithm 1)."""

    def __init__(self, tuner: AdaLoraModel) -> None:
        self._tuner = tuner
        self._config = tuner.peft_config[tuner.trainable_adapter_name]
        self._allocator = tuner.rankallocator
        self._factors = [
            (parameter, "lora_A" in name)
            for name, parameter in tuner.model.named_parameters()
            if parameter.requires_grad and ("lora_A" in name or "lora_B" in name)
        ]

    @override
    def before_update(self) -> None:
        """Add the gradient of the regulariser: mean distance of `A A^T` and `B^T B` from the identity."""
        weight = self._config.orth_reg_weight
        if not weight:
            return
        distances = []
        for factor, is_right in self._factors:
            product = factor @ factor.T if is_right else factor.T @ factor
            distances.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
        # PEFT adds this to the loss, which each worker and micro-batch would do again; here it counts once a step.
        (weight * torch.stack(distances).mean()).backward()

    @override
    def after_update(self, step: int) -> None:
        """Update the importance of every rank and, when the schedule says so, zero the least important ones."""
        self._tuner.update_and_allocate(step)

    @override
    def state(self) -> dict[str, torch.Tensor]:
        """Importance averages and the ranks that are in use."""
        state = {
            f"{kind}/{name}": tensor.cpu().contiguous()
            for kind in _AVERAGES
            for name, tensor in getattr(self._allocator, kind).items()
        }
        for name, used in (self._config.rank_pattern or {}).items():
            state[f"{_PATTERN}/{name}"] = torch.tensor(used, dtype=torch.bool)
        return state

    @override
    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self._allocator.reset_ipt()
        pattern: dict[str, list[bool]] = {}
        devices = {name: parameter.device for name, parameter in self._tuner.model.named_parameters()}
        for key, tensor in state.items():
            kind, _, name = key.partition("/")
            if kind == _PATTERN:
                pattern[name] = tensor.tolist()
            else:
                getattr(self._allocator, kind)[name] = tensor.to(devices[name])
        self._config.rank_pattern = pattern or None
