"""ChatGLM2 and ChatGLM3 are GLM with query, key and value in one packed projection."""

import torch
from transformers import GlmConfig

from didact.models.families.family import Config, Family, Tensors, require, shared_fields
from didact.models.families.sentencepieces import glm_tokenizer

_EXPECTED = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False,
    "multi_query_attention": True,
    "original_rope": True,
    "post_layer_norm": True,
    "pre_seq_len": None,
    "quantization_bit": 0,
    "rmsnorm": True,
    "rope_ratio": 1,  # long-context variants read it in two different ways, with nothing in the file to tell which
}
_RENAMED = {
    "transformer.embedding.word_embeddings.": "model.embed_tokens.",
    "transformer.encoder.layers.": "model.layers.",
    "transformer.encoder.final_layernorm.": "model.norm.",
    "transformer.output_layer.": "lm_head.",
    ".self_attention.dense.": ".self_attn.o_proj.",
    ".mlp.dense_h_to_4h.": ".mlp.gate_up_proj.",
    ".mlp.dense_4h_to_h.": ".mlp.down_proj.",
}


def _config(config: Config) -> GlmConfig:
    require("chatglm", config, _EXPECTED)
    eos = config.get("eos_token_id", 2)
    return GlmConfig(
        **shared_fields(config, "hidden_size", "num_attention_heads", "attention_dropout", "tie_word_embeddings"),
        vocab_size=config["padded_vocab_size"],
        intermediate_size=config["ffn_hidden_size"],
        num_hidden_layers=config["num_layers"],
        num_key_value_heads=config["multi_query_group_num"],
        head_dim=config["kv_channels"],
        max_position_embeddings=config["seq_length"],
        rms_norm_eps=config["layernorm_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5},
        attention_bias=True,
        pad_token_id=config.get("pad_token_id", 0),
        eos_token_id=eos,
    )


def _tensors(config: Config, name: str, tensor: torch.Tensor) -> Tensors:
    if name.endswith("rotary_pos_emb.inv_freq"):
        return {}
    for old, new in _RENAMED.items():
        name = name.replace(old, new)
    if ".self_attention.query_key_value." not in name:
        return {name: tensor}
    keys = config["multi_query_group_num"] * config["kv_channels"]
    queries = config["num_attention_heads"] * config["kv_channels"]
    parts = zip(("q_proj", "k_proj", "v_proj"), tensor.split([queries, keys, keys]), strict=True)
    return {name.replace("self_attention.query_key_value", f"self_attn.{part}"): weight for part, weight in parts}


FAMILY = Family("chatglm2", _config, _tensors, glm_tokenizer)
