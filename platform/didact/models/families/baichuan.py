"""Baichuan 7B is Llama with query, key and value in one packed projection; 13B has ALiBi instead of rotary positions.

Baichuan 2 (vocabulary of 125,696) also scales each row of its output layer to length one, which is folded into it.
"""

import torch
from torch.nn import functional
from transformers import LlamaConfig

from didact.models.families.alibi import AlibiLlamaConfig
from didact.models.families.family import Config, Family, Tensors, shared_fields
from didact.models.families.sentencepieces import llama_like_tokenizer

_SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("rms_norm_eps", "initializer_range", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id"),
)
_SECOND_VOCABULARY = 125_696


def _rotary(config: Config) -> LlamaConfig:
    return LlamaConfig(**shared_fields(config, *_SHARED, "max_position_embeddings"))


def _alibi(config: Config) -> AlibiLlamaConfig:
    return AlibiLlamaConfig(**shared_fields(config, *_SHARED), max_position_embeddings=config["model_max_length"])


def _tensors(config: Config, name: str, tensor: torch.Tensor) -> Tensors:
    if name.endswith("rotary_emb.inv_freq"):
        return {}
    if "W_pack" in name:
        parts = zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True)
        return {name.replace("W_pack", part): weight for part, weight in parts}
    if name == "lm_head.weight" and config["vocab_size"] == _SECOND_VOCABULARY:
        return {name: functional.normalize(tensor.float()).to(tensor.dtype)}
    return {name: tensor}


ROTARY = Family("baichuan", _rotary, _tensors, llama_like_tokenizer)
ALIBI = Family("baichuan-alibi", _alibi, _tensors, llama_like_tokenizer)
