"""Put a method onto a base model: what is trained from here on."""

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedModel

from didact.errors import ModelError
from didact.spec import AdapterSpec, FullSpec, LoraSpec, PrefixSpec


def attach_adapter(
    model: PreTrainedModel, spec: AdapterSpec, *, seed: int, base_name: str, gradient_checkpointing: bool = False
) -> PeftModel | PreTrainedModel:
    """Wrap `model` with a fresh adapter; with the `full` method, unfreeze the model itself.

    Args:
        model: from `load_base`.
        spec: the method.
        seed: of the adapter's initial weights; the same seed gives the same adapter on every worker.
        base_name: written into the adapter's configuration as the base it belongs to.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        ModelError: the method's target modules are not in this model.
    """
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if isinstance(spec, FullSpec):
        return model.requires_grad_(True)
    if getattr(model, "is_quantized", False):
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    elif gradient_checkpointing:
        model.enable_input_require_grads()
    config = _peft_config(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(model, config)
        except ValueError as error:
            raise ModelError(f"adapter.method {spec.method!r} does not fit {base_name!r}: {error}") from error
    wrapped.peft_config["default"].base_model_name_or_path = base_name
    return wrapped


def _peft_config(spec: LoraSpec | PrefixSpec) -> PeftConfig:
    if isinstance(spec, PrefixSpec):
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=spec.num_virtual_tokens)
    targets = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=targets,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
    )
