"""Two-layer random models of each family, with the byte tokenizer's vocabulary. Seconds to build, no download."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from didact.gpu_proof.tokenizer import byte_tokenizer

VOCAB = 272
_SMALL = {"vocab_size": VOCAB, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024}
FAMILIES: dict[str, dict[str, int]] = {
    "llama": {**_SMALL, **_HEADS},
    "mistral": {**_SMALL, **_HEADS},
    "qwen2": {**_SMALL, **_HEADS},
    "qwen3": {**_SMALL, **_HEADS, "head_dim": 16},
    "gemma": {**_SMALL, **_HEADS, "head_dim": 16},
    "phi": {**_SMALL, **_HEADS},
    "gpt_neox": {**_SMALL, "num_attention_heads": 4, "max_position_embeddings": 1024},
    "gpt2": _GPT2,
    "opt": {
        **_SMALL,
        "ffn_dim": 128,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        "word_embed_proj_dim": 64,
    },
    "bloom": {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4},
    "glm": {**_SMALL, **_HEADS, "head_dim": 16},
    "glm4": {**_SMALL, **_HEADS, "head_dim": 16},
    "falcon": {**_SMALL, "num_attention_heads": 4, "max_position_embeddings": 1024},
    "codegen": {**_GPT2, "n_ctx": 1024, "rotary_dim": 8},
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
_DEEPSEEK = {**_SMALL, **_HEADS, **_EXPERTS, **_LATENT, "num_key_value_heads": 4, "first_k_dense_replace": 1}
_ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
_STATES = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "expand": 2}
_JAMBA = {"attn_layer_period": 4, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
UNUSUAL: dict[str, dict[str, int]] = {
    "mixtral": {**_SMALL, **_HEADS, "num_local_experts": 4},
    "qwen2_moe": {**_SMALL, **_HEADS, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 64},
    "qwen3_moe": {**_SMALL, **_HEADS, **_EXPERTS, "head_dim": 16, "num_experts": 4},
    "gpt_oss": {**_SMALL, **_HEADS, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": {**_DEEPSEEK, **_ROUTED},
    "deepseek_v3": {**_DEEPSEEK, **_ROUTED, "head_dim": 8},
    "llama4_text": {**_SMALL, **_HEADS, "head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 128},
    "phimoe": {**_SMALL, **_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v32": {**_DEEPSEEK, **_ROUTED, "head_dim": 8, "index_n_heads": 2, "index_head_dim": 16, "index_topk": 8},
    "jetmoe": {**_SMALL, "num_key_value_heads": 2, "kv_channels": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba": _STATES,
    "mamba2": {**_STATES, "num_heads": 8, "head_dim": 16, "n_groups": 1},
    "falcon_h1": {**_SMALL, **_HEADS, "mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8},
    "jamba": {**_SMALL, **_HEADS, "num_hidden_layers": 4, "num_experts": 4, "mamba_d_state": 8, **_JAMBA},
    "gpt_bigcode": _GPT2,
    "persimmon": {**_SMALL, "num_attention_heads": 4, "max_position_embeddings": 1024},
    "doge": {**_SMALL, **_HEADS, "head_dim": 16},
}
"""Families whose layers are not like those of the rest: experts, states instead of attention, values of another size
than keys, no positions handed to the attention."""
UNPACKABLE = ("bloom", "falcon", "opt")
"""Families in which samples of one row attend to each other, whatever their positions."""


def tiny_model(family: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random float32 model of `family` in eval mode, hidden size 64 (bitsandbytes quantizes in blocks of 64)."""
    torch.manual_seed(seed)
    special = {"bos_token_id": None, "eos_token_id": 256, "pad_token_id": 257}
    config = AutoConfig.for_model(family, **(FAMILIES | UNUSUAL)[family], **special)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def save_tiny_base(folder: Path, family: str = "llama", seed: int = 0, chat_template: bool = True) -> Path:
    """A loadable base folder: safetensors, config and tokenizer. Returns `folder`."""
    tiny_model(family, seed).save_pretrained(folder)
    tokenizer = byte_tokenizer() if chat_template else byte_tokenizer(chat_template=None)
    tokenizer.save_pretrained(folder)
    return folder
