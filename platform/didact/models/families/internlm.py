"""InternLM (the first) is Llama with biases on the four attention projections."""

from typing import Any

import torch
from transformers import LlamaConfig

from didact.models.families.family import Config, Family, Tensors, require, shared_fields
from didact.models.families.sentencepieces import llama_like_tokenizer

_SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings"),
    *("pad_token_id", "bos_token_id", "eos_token_id"),
)


def _config(config: Config) -> LlamaConfig:
    return LlamaConfig(
        **shared_fields(config, *_SHARED), attention_bias=config.get("bias", True), rope_parameters=_rope(config)
    )


def _rope(config: Config) -> dict[str, Any]:
    scaling = config.get("rope_scaling")
    if rotary := config.get("rotary"):  # how the published chat models write dynamic scaling
        require("internlm", rotary, {"type": "dynamic"})
        return {"rope_type": "dynamic", "rope_theta": float(rotary.get("base", 10_000)), "factor": 1.0}
    theta = float(config.get("rope_theta", 10_000))
    if not scaling:
        return {"rope_type": "default", "rope_theta": theta}
    require("internlm", scaling, {"type": "dynamic"})
    return {"rope_type": "dynamic", "rope_theta": theta, "factor": float(scaling["factor"])}


def _tensors(_config: Config, name: str, tensor: torch.Tensor) -> Tensors:
    return {} if name.endswith("rotary_emb.inv_freq") else {name: tensor}


FAMILY = Family("internlm", _config, _tensors, llama_like_tokenizer)
