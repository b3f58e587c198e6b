"""Begin training with the weights of an adapter that was trained before."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from didact.adapter_folder import CONFIG, WEIGHTS
from didact.errors import AdapterError
from didact.models.adapter.adapter_files import verify_adapter
from didact.models.adapter.put_weights import put_weights
from didact.spec import FullSpec, LoraSpec, MethodSpec

_NO_SETTINGS = ("inference_mode", "init_lora_weights", "lora_dropout", "total_step")
"""Entries of PEFT's configuration that say nothing of what the weights mean."""


def check_start(folder: Path, spec: MethodSpec, base_fingerprint: str) -> str:
    """The identity of an adapter that training may begin with.

    Args:
        folder: the adapter.
        spec: the method that is trained.
        base_fingerprint: of the base that is trained on.

    Raises:
        AdapterError: damaged, of another base or method, or for a method that cannot begin with weights of before.
    """
    method = spec.model_dump()["method"]
    if isinstance(spec, FullSpec):
        raise AdapterError("adapter.from: method 'full' trains the base itself; name the model's folder as model.base")
    if method == "adalora" or (isinstance(spec, LoraSpec) and spec.init != "default"):
        asked = "adapter.method adalora" if method == "adalora" else f"adapter.init {spec.model_dump()['init']!r}"
        raise AdapterError(f"adapter.from: {asked} makes a start of its own, which {folder} would take the place of")
    facts = verify_adapter(folder, base_fingerprint)
    if facts.method != method:
        raise AdapterError(f"adapter.from: {folder} is of method {facts.method!r}; expected adapter.method {method!r}")
    return facts.sha256


def start_from(model: PeftModel | PreTrainedModel, folder: Path) -> None:
    """Put the weights of a checked adapter onto a model with a fresh one.

    Raises:
        AdapterError: its settings or shapes are not those of the recipe.
    """
    weights = load_file(folder / WEIGHTS)
    try:
        if isinstance(model, PeftModel):
            _check_settings(model, json.loads((folder / CONFIG).read_text(encoding="utf-8")))
            put_weights(model, "default", weights)
        else:
            _put_parameters(model, weights)
    except (ValueError, RuntimeError, KeyError) as error:
        raise AdapterError(f"adapter.from: {folder} does not fit the recipe's adapter: {error}") from error


def _check_settings(model: PeftModel, before: dict[str, Any]) -> None:
    now = model.peft_config["default"].to_dict()
    for name, value in now.items():
        is_setting = isinstance(value, bool | int | float) and name not in _NO_SETTINGS
        if is_setting and name in before and before[name] != value:
            raise ValueError(f"its {name} is {before[name]!r}, the recipe's {value!r}")


def _put_parameters(model: PreTrainedModel, weights: dict[str, torch.Tensor]) -> None:
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if odd := sorted(trained.keys() ^ weights.keys()):
        raise ValueError(f"{len(odd)} weights are trained in one of them only, such as {odd[0]}")
    with torch.no_grad():
        for name, each in trained.items():
            each.copy_(weights[name])
