"""Put a method onto a base model: what is trained from here on."""

from collections.abc import Callable

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.adapter.fused_lora import fuse_lora
from didact.models.base import base_of
from didact.models.methods import (
    align_positions,
    left_out,
    loftq_start,
    lstm_without_autocast,
    peft_config,
    remember_start,
    train_partially,
)
from didact.spec import FullSpec, LoraSpec, MethodSpec, PartialSpec

_LOG = get_logger(__name__)
# What PEFT and torch raise where a method's shapes, layer types or options do not suit a model.
_UNFIT = (ValueError, TypeError, RuntimeError, AttributeError)


def attach_adapter(
    model: PreTrainedModel,
    spec: MethodSpec,
    *,
    seed: int,
    base_name: str,
    gradient_checkpointing: bool = False,
    num_steps: int | None = None,
    unquantized: Callable[[], PreTrainedModel] | None = None,
) -> PeftModel | PreTrainedModel:
    """Wrap `model` with a fresh adapter; with `full` and `partial`, unfreeze weights of the model itself.

    Args:
        model: from `load_base`; on the meta device for counting only.
        spec: the method.
        seed: of the adapter's initial weights; the same seed gives the same adapter on every worker.
        base_name: written into the adapter's configuration as the base it belongs to.
        gradient_checkpointing: recompute activations in the backward pass.
        num_steps: optimizer steps of the run; only methods with a schedule (`adalora`) need it.
        unquantized: loads the same base without quantization; only LoftQ needs it.

    Raises:
        ModelError: the method, its options or its target modules do not fit this model.
    """
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if isinstance(spec, FullSpec):
        return model.requires_grad_(True)
    if isinstance(spec, PartialSpec):
        return train_partially(model, spec)
    if gradient_checkpointing:
        model.enable_input_require_grads()
    return _wrap(model, spec, seed, base_name, num_steps, unquantized)


def _wrap(
    model: PreTrainedModel,
    spec: MethodSpec,
    seed: int,
    base_name: str,
    num_steps: int | None,
    unquantized: Callable[[], PreTrainedModel] | None,
) -> PeftModel:
    counting = next(model.parameters()).is_meta
    if counting and isinstance(spec, LoraSpec):
        spec = spec.model_copy(update={"init": "default"})  # the other starts compute with the base's weights
    config = peft_config(spec, model, num_steps=num_steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config)
        except _UNFIT as error:
            raise ModelError(
                f"adapter.method {spec.model_dump()['method']!r} does not fit {base_name!r}: {error}"
            ) from error
    for words in () if counting else left_out(base_of(wrapped), spec):
        _LOG.warning("adapter.target_modules all-linear leaves out %s", words)
    if isinstance(spec, LoraSpec) and spec.init == "loftq":
        loftq_start(wrapped, unquantized)
    remember_start(wrapped)
    align_positions(wrapped)
    lstm_without_autocast(wrapped)
    _leave_casts_to_autocast(wrapped)
    fuse_lora(wrapped)
    _name_base(wrapped, base_name)
    return wrapped


def _leave_casts_to_autocast(wrapped: PeftModel) -> None:
    """Stop plain LoRA layers from copying what enters them to float32, only for autocast to bring it back.

    Each layer would make and keep its own copies. Variants (DoRA) compute with weights beside it in that precision.
    """
    for module in wrapped.modules():
        if isinstance(module, LoraLayer) and not module.lora_variant:
            module._cast_input_dtype = _cast_outside_autocast


def _cast_outside_autocast(states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return states if torch.is_autocast_enabled(states.device.type) else states.to(dtype)


def _name_base(wrapped: PeftModel, base_name: str) -> None:
    config = wrapped.peft_config["default"]
    config.base_model_name_or_path = base_name
    if getattr(config, "tokenizer_name_or_path", None):  # a folder of this machine, needed for the start only
        config.tokenizer_name_or_path = base_name
