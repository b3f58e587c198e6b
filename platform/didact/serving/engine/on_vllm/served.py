"""Which adapters vLLM can serve, and why it refuses the others before vLLM sees them.

vLLM reads plain LoRA. Of other methods it either says nothing and computes something else, or its whole engine ends, so
every byte is checked here first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from didact.adapter_folder import CONFIG, WEIGHTS
from didact.errors import AdapterError

WAY_OUT = "Merge it into a base of its own (`didact merge ADAPTER FOLDER`), or serve it with engine: embedded"
_SAVED_AS_LORA = ("lora", "adalora")
_REFUSED_SETTINGS = {
    "use_dora": "DoRA",
    "modules_to_save": "whole modules beside LoRA",
    "trainable_token_indices": "new tokens",
    "lora_bias": "biases beside LoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "repeated layers",
    "use_bdlora": "block-diagonal LoRA",
    "use_qalora": "QALoRA",
    "target_parameters": "LoRA on parameters of experts",
    "megatron_config": "LoRA on Megatron's layers",
}
"""Settings of PEFT's `adapter_config.json` -> what they mean."""


def check_served(folder: Path, base_fingerprint: str, max_rank: int) -> None:
    """Nothing, where vLLM computes with an adapter folder what the adapter says.

    Args:
        folder: as written by `save_adapter`.
        base_fingerprint: of the base in memory.
        max_rank: `vllm.max_lora_rank`.

    Raises:
        AdapterError: see `verify_adapter`; also for what vLLM cannot serve, with the way out.
    """
    from safetensors import safe_open  # the HTTP side reads tags only, and loads no tensors

    from didact.models import verify_adapter

    facts = verify_adapter(folder, base_fingerprint)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    with safe_open(folder / WEIGHTS, framework="numpy") as weights:
        names = list(weights.keys())
    bound = "LoftQ, which fits the quantized base only" if facts.bound else None
    if why := _method(facts.method) or bound or _config(config, max_rank) or _weights(names):
        raise AdapterError(f"adapter {folder}: the engine vllm does not serve {why}. {WAY_OUT}")


def why_not_served(tags: Mapping[str, str], max_rank: int) -> str | None:
    """The same from the tags of a registered version alone, as far as they tell; None where they say nothing."""
    method = tags.get("method")
    why = None if method is None else _method(method)
    if why is None:
        options = _options(tags.get("method_options"))
        dora = "DoRA" if options.get("dora") is True else None
        why = dora or _rank([options.get("r")], max_rank)
    return None if why is None else f"the engine vllm does not serve {why}. {WAY_OUT}"


def _options(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _method(method: str) -> str | None:
    return None if method in _SAVED_AS_LORA else f"the method {method}"


def _config(config: Mapping[str, Any], max_rank: int) -> str | None:
    if config.get("peft_type") != "LORA":
        return f"PEFT's {config.get('peft_type')}"
    for setting, means in _REFUSED_SETTINGS.items():
        if config.get(setting):
            return f"{means} ({setting})"
    if config.get("bias", "none") != "none":
        return f"trained biases (bias: {config['bias']})"
    return _rank([config.get("r"), *(config.get("rank_pattern") or {}).values()], max_rank)


def _rank(ranks: list[Any], max_rank: int) -> str | None:
    highest = max((rank for rank in ranks if isinstance(rank, int)), default=0)
    return f"rank {highest} with vllm.max_lora_rank {max_rank}; raise that, too" if highest > max_rank else None


def _weights(names: list[str]) -> str | None:
    others = [name for name in names if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    return f"weights such as {others[0]}" if others else None
