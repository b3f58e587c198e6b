"""Sizes of published bases, so that runs on them can be planned where they have not been downloaded.

Each is what the `config.json` of that name on the hub says, in the words of the class that loads it.
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from didact.models.families.convert import register_own_models

_LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
}
_BLOOM = {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32, "vocab_size": 250_880}
_MOSS = {
    "model_type": "codegen",
    "n_embd": 6144,
    "n_layer": 34,
    "n_head": 24,
    "n_positions": 2048,
    "n_ctx": 2048,
    "rotary_dim": 64,
    "vocab_size": 107_008,
    "tie_word_embeddings": False,
}
_GLM = {
    "model_type": "glm6b",
    "hidden_size": 4096,
    "intermediate_size": 16_384,
    "num_hidden_layers": 28,
    "num_attention_heads": 32,
    "vocab_size": 130_528,
}
_SIZES: dict[str, dict[str, Any]] = {
    "huggyllama/llama-7b": _LLAMA,
    "lmsys/vicuna-7b-v1.1": _LLAMA,
    "bigscience/bloom-7b1": _BLOOM,
    "bigscience/bloomz-7b1": _BLOOM,
    "bigscience/bloomz-7b1-mt": _BLOOM,
    "fnlp/moss-moon-003-base": _MOSS,
    "fnlp/moss-moon-003-sft": _MOSS,
    "THUDM/chatglm-6b": _GLM,
}


def published_config(base: str) -> PreTrainedConfig | None:
    """The configuration of a published base that is known by name; None for any other.

    Args:
        base: its hub id.
    """
    sizes = _SIZES.get(base)
    if sizes is None:
        return None
    register_own_models(sizes["model_type"])
    given = {name: value for name, value in sizes.items() if name != "model_type"}
    return AutoConfig.for_model(sizes["model_type"], **given)
