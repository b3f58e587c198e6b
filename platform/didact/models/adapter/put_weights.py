"""An adapter's configuration and weights, read from its folder and put onto a base."""

from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from didact.models.methods import register_bottleneck


def read_config(folder: Path) -> PeftConfig:
    """The PEFT configuration of an adapter folder, fit to be put onto a base that others use too.

    Raises:
        ValueError: the method changes the base's own weights.
    """
    register_bottleneck()
    config = PeftConfig.from_pretrained(folder)
    config.inference_mode = True
    start = getattr(config, "init_lora_weights", True)
    if getattr(config, "bias", "none") != "none" or (
        isinstance(start, str) and start not in ("gaussian", "orthogonal")
    ):
        raise ValueError("it changes the base's own weights, which other adapters share")
    if isinstance(start, str):
        config.init_lora_weights = True  # its weights are loaded; the start may not suit a quantized base
    return config


def put_weights(model: PeftModel, slot: str, weights: dict[str, torch.Tensor]) -> None:
    """Fill the adapter `slot` of `model`.

    Raises:
        ValueError: weights are missing or have no place.
    """
    result = set_peft_model_state_dict(model, weights, adapter_name=slot)
    if model.peft_config[slot].is_prompt_learning:
        return  # one tensor, which PEFT has loaded strictly
    own = get_peft_model_state_dict(model, adapter_name=slot, save_embedding_layers=False)
    odd = set(result.unexpected_keys) | (own.keys() ^ weights.keys())
    if odd:
        raise ValueError(f"{len(odd)} tensors are missing or have no place, such as {min(odd)}")
