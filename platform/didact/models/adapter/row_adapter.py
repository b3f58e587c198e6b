"""Adapters that single rows of a batch can have, each row its own: read from a folder into plain tensors.

A LoRA adapter is two products beside a linear layer, an IA3 adapter one factor for each of its inputs or outputs: both
can be computed for some rows of a batch and not for others. What else a method may do to a base cannot (`DoRA` needs
the norm of the merged weight, a bottleneck wraps whole blocks, a partial adapter replaces the base's own weights).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, PeftConfig
from peft.tuners.ia3 import IA3Model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file

from didact.adapter_folder import WEIGHTS
from didact.models.adapter.put_weights import read_config

_PREFIX = "base_model.model."
_FREE = {
    LoraConfig: {"alpha_pattern", "fan_in_fan_out", "init_lora_weights", "layers_pattern", "layers_to_transform"}
    | {"exclude_modules", "lora_alpha", "lora_dropout", "r", "rank_pattern", "target_modules", "use_rslora"},
    IA3Config: {"exclude_modules", "fan_in_fan_out", "feedforward_modules", "init_ia3_weights", "target_modules"},
}
"""Fields in which an adapter of the kind may differ from the default. Any other asks for a variant."""
_SILENT = {"auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"} | {
    *("task_type", "runtime_config"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
}
"""Fields that say nothing about an adapter whose weights are read: who wrote it, and how training began."""
_Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LoraPart:
    """What LoRA adds beside one linear layer."""

    first: torch.Tensor
    """A, [rank, inputs]."""
    second: torch.Tensor
    """The transposed B with the scaling in it, [rank, outputs]."""


@dataclass(frozen=True, slots=True)
class ScalePart:
    """What IA3 multiplies one linear layer with."""

    factors: torch.Tensor
    """[inputs] or [outputs]."""
    of_inputs: bool


@dataclass(frozen=True, slots=True)
class RowAdapter:
    """An adapter in memory that a row can have for itself, by the names of the linear layers it is on."""

    parts: Mapping[str, LoraPart | ScalePart]


def read_row_adapter(folder: Path, linear: _Shapes, modules: frozenset[str], dtype: torch.dtype) -> RowAdapter | None:
    """Read a verified adapter folder. Touches no model, so any thread may do it.

    Args:
        folder: of a PEFT adapter, as `verify_adapter` found it good.
        linear: inputs and outputs of each linear layer of the bare base that computes row by row.
        modules: names of all its modules.
        dtype: of the tensors.

    Returns:
        None for an adapter that needs the whole model for itself.

    Raises:
        ValueError: tensors are missing, have no place or are of another shape.
    """
    config = read_config(folder)
    if not _is_plain(config):
        return None
    targets = {name for name in modules if check_target_module_exists(config, name)}
    if not targets <= linear.keys():
        return None
    weights = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    read = _lora_part if isinstance(config, LoraConfig) else _scale_part
    parts = {name: read(config, name, linear[name], weights, dtype) for name in sorted(targets)}
    if weights:
        raise ValueError(f"{len(weights)} tensors have no place, such as {min(weights)}")
    return RowAdapter(parts)


def _is_plain(config: PeftConfig) -> bool:
    free = _FREE.get(type(config))
    if free is None:
        return False
    default = type(config)()
    fields = {field.name for field in dataclasses.fields(config)} - free - _SILENT
    return all(not getattr(config, name) or getattr(config, name) == getattr(default, name) for name in fields)


def _lora_part(
    config: Any, name: str, shape: tuple[int, int], weights: dict[str, torch.Tensor], dtype: torch.dtype
) -> LoraPart:
    rank = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), name), config.r)
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern.keys(), name), config.lora_alpha)
    scaling = alpha / (math.sqrt(rank) if config.use_rslora else rank)
    first = _take(weights, f"{name}.lora_A.weight", (rank, shape[0]))
    second = _take(weights, f"{name}.lora_B.weight", (shape[1], rank))
    return LoraPart(first.to(dtype), (second.float() * scaling).to(dtype).t().contiguous())


def _scale_part(
    config: Any, name: str, shape: tuple[int, int], weights: dict[str, torch.Tensor], dtype: torch.dtype
) -> ScalePart:
    of_inputs = IA3Model._check_target_module_feedforward(config, name)
    expected = (1, shape[0]) if of_inputs else (shape[1], 1)
    return ScalePart(_take(weights, f"{name}.ia3_l", expected).flatten().to(dtype), of_inputs)


def _take(weights: dict[str, torch.Tensor], name: str, expected: tuple[int, int]) -> torch.Tensor:
    tensor = weights.pop(name, None)
    if tensor is None:
        raise ValueError(f"tensor {name} is missing")
    if tuple(tensor.shape) != expected:
        raise ValueError(f"tensor {name} is {tuple(tensor.shape)}; expected {expected}")
    return tensor
