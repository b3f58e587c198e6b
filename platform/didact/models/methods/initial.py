"""Starts of LoRA that look at the base's weights, and what they mean for the adapter that is saved."""

import copy
from collections.abc import Callable

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from didact.errors import ModelError

_START = "_didact_start"
_BOUND = "_didact_bound_to_quantization"


def loftq_start(model: PeftModel, unquantized: Callable[[], PreTrainedModel] | None) -> None:
    """Start the adapter at the best low-rank approximation of what 4-bit quantization took away (Li et al., 2023).

    One of the paper's alternating steps: the quantized base stays as it is, so the adapter fits every copy of it.

    Args:
        model: LoRA on a 4-bit base.
        unquantized: loads the same base in full; it is dropped again before this returns.

    Raises:
        ModelError: `unquantized` is missing, or no target layer is held in 4 bits.
    """
    if unquantized is None:
        raise ModelError("adapter.init 'loftq' needs the base's unquantized weights, which were not given")
    full = dict(unquantized().named_modules())
    layers = [
        (name.removeprefix("base_model.model."), module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), bnb.nn.Linear4bit)
    ]
    if not layers:
        raise ModelError("adapter.init 'loftq' found no 4-bit layer under the adapter")
    with torch.no_grad():
        for name, layer in layers:
            weight = layer.get_base_layer().weight
            held = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float()
            _set_product(layer, full[name].weight.to(held) - held)
    setattr(model, _BOUND, True)


def bound_to_quantization(model: torch.nn.Module) -> bool:
    """Whether the adapter holds a part of the base that quantization took away, and fits no other base (LoftQ)."""
    return getattr(model, _BOUND, False)


def remember_start(model: PeftModel) -> None:
    """Keep the first weights of a start that was taken out of the base (PiSSA); see `plain_lora`."""
    config = model.peft_config["default"]
    if isinstance(config, LoraConfig) and config.init_lora_weights == "pissa":
        start = get_peft_model_state_dict(model, save_embedding_layers=False)
        setattr(model, _START, {name: tensor.detach().cpu().clone() for name, tensor in start.items()})


def plain_lora(model: PeftModel) -> tuple[LoraConfig, dict[str, torch.Tensor]] | None:
    """The trained adapter as a LoRA of twice the rank on the *unchanged* base; None when it is one already.

    PiSSA trains beside `W - s B0 A0`. What it learned, `s (B A - B0 A0)`, is the product of `[B, -B0]` and `[A; A0]`
    (Meng et al., 2024, appendix). Exact in float32; on a base in fewer bits up to the rounding of `W - s B0 A0`.
    """
    start = getattr(model, _START, None)
    if start is None:
        return None
    config = copy.deepcopy(model.peft_config["default"])
    weights = {}
    for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        first = start[name].to(tensor)
        weights[name] = torch.cat([tensor, first]) if "lora_A" in name else torch.cat([tensor, -first], dim=1)
    config.init_lora_weights, config.r = True, config.r * 2
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2  # the same scale s at twice the rank
    return config, weights


def _set_product(layer: LoraLayer, residual: torch.Tensor) -> None:
    """Make scale * B @ A the best approximation of `residual` [out, in] of its rank."""
    rank, scale = layer.r["default"], layer.scaling["default"]
    left, singular, right = torch.linalg.svd(residual, full_matrices=False)
    root = (singular[:rank] / scale).sqrt()
    layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
    layer.lora_B["default"].weight.copy_(left[:, :rank] * root)
