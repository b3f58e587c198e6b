"""Weighted sums of several LoRA adapters' updates on one base, exactly.

PEFT's `add_weighted_adapter(combination_type="linear")` adds up A and B by themselves, whose product has terms that
belong to no adapter. Here, as with its `cat`, all A stand one below the other and all B beside each other, each times
its weight; a new sum then only scales columns.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from didact.errors import AdapterError
from didact.spec import FinetuneSpec, LoraSpec
from didact.training import trainable_model

_WEIGHTS = "adapter_model.safetensors"
_ADAPTER = ".default"


class MergedAdapters:
    """The sum over adapters k of weight[k] * scale * B[k] A[k], in every layer of one model."""

    def __init__(self, model: torch.nn.Module, adapters: Sequence[dict[str, torch.Tensor]], scale: float) -> None:
        """Every weight is 0 until `weigh` is called.

        Args:
            model: with a LoRA adapter of scale 1 whose rank is the sum of theirs, as `merged_model` makes.
            adapters: tensors by PEFT's names, of equal shapes.
            scale: of each of them, alpha / r.

        Raises:
            AdapterError: they do not have the layers that the model has.
        """
        trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self._sums: list[tuple[torch.nn.Parameter, list[torch.Tensor]]] = []
        for name, parameter in trained.items():
            stored = name.replace(_ADAPTER, "")
            if any(stored not in each for each in adapters):
                raise AdapterError(f"an adapter of a source has no {stored}, which the model trains")
            parts = [each[stored].to(parameter.device, parameter.dtype) for each in adapters]
            if ".lora_A." in name:
                parameter.data.copy_(torch.cat(parts))
            else:
                self._sums.append((parameter, [part * scale for part in parts]))
        self.weigh([0.0] * len(adapters))

    def weigh(self, weights: Sequence[float]) -> None:
        """Let the model compute with another sum."""
        for parameter, parts in self._sums:
            parameter.data.copy_(torch.cat([part * weight for part, weight in zip(parts, weights, strict=True)], dim=1))


def merged_model(
    spec: FinetuneSpec, adapters: Sequence[Path], device: torch.device, num_steps: int
) -> tuple[torch.nn.Module, MergedAdapters, bool]:
    """The recipe's base with room for sums of adapters.

    Args:
        spec: the recipe that they were trained by, with plain LoRA.
        adapters: their folders.
        device: what computes.
        num_steps: of the recipe.

    Returns:
        The model, what sets its sum, and whether rows are packed for it.
    """
    lora = spec.adapter
    assert isinstance(lora, LoraSpec)
    rank = lora.r * len(adapters)
    wide = lora.model_copy(update={"r": rank, "alpha": rank, "rslora": False, "dropout": 0.0, "init": "default"})
    model, packing = trainable_model(spec.model_copy(update={"adapter": wide}), num_steps, device)
    scale = lora.alpha / (math.sqrt(lora.r) if lora.rslora else lora.r)
    return model, MergedAdapters(model, [load_file(each / _WEIGHTS) for each in adapters], scale), packing
