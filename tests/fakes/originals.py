"""Tiny checkpoints in the layouts of published bases whose repositories carry their own modelling code.

Each tensor is a pure function of its name and shape, so that the logits which the original code gave for them (in
tests/golden/originals.json) stay valid. No code of those repositories is here.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HIDDEN, INNER, LAYERS, HEADS, VOCAB = 64, 128, 2, 4, 64
INPUTS = ((5, 17, 40, 33, 8, 60, 61, 12, 9, 44, 3, 27), (7, 22, 60, 61, 50, 31, 19))
"""Two rows. 60 is [gMASK] and 61 <sop>, which only ChatGLM-6B treats as other than words."""
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "originals.json"

_BAICHUAN = {
    "model_type": "baichuan",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "baichuan-7b": {
        **_BAICHUAN,
        "architectures": ["BaiChuanForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaiChuanForCausalLM"},
        "max_position_embeddings": 64,
    },
    "baichuan-13b": {
        **_BAICHUAN,
        "architectures": ["BaichuanForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
        "model_max_length": 64,
        "gradient_checkpointing": False,
    },
    "internlm": {
        **_BAICHUAN,
        "model_type": "internlm",
        "architectures": ["InternLMForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm.InternLMForCausalLM"},
        "max_position_embeddings": 64,
        "bias": True,
    },
    "moss": {
        "model_type": "moss",
        "architectures": ["MossForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_moss.MossForCausalLM"},
        "vocab_size": VOCAB,
        "n_positions": 64,
        "n_ctx": 64,
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_inner": None,
        "rotary_dim": 8,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "wbits": 32,
        "groupsize": 128,
    },
    "chatglm2": {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_query_key_layer_scaling": True,
        "apply_residual_connection_post_layernorm": False,
        "attention_softmax_in_fp32": True,
        "ffn_hidden_size": INNER,
        "fp32_residual_connection": False,
        "hidden_size": HIDDEN,
        "kv_channels": 16,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "original_rope": True,
        "padded_vocab_size": VOCAB,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 64,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    "chatglm-6b": {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "bos_token_id": 61,
        "eos_token_id": 62,
        "mask_token_id": 59,
        "gmask_token_id": 60,
        "pad_token_id": 3,
        "hidden_size": HIDDEN,
        "inner_hidden_size": INNER,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 64,
        "num_attention_heads": HEADS,
        "num_layers": LAYERS,
        "position_encoding_2d": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": VOCAB,
    },
}
CONFIGS["internlm-dynamic"] = {
    **CONFIGS["internlm"],
    "max_position_embeddings": 8,
    "num_key_value_heads": HEADS,
    "rope_theta": 10000,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
}
# Only this vocabulary tells Baichuan 2, whose output layer is normalised, from its predecessor.
CONFIGS["baichuan2-7b"] = {
    **CONFIGS["baichuan-7b"],
    "architectures": ["BaichuanForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
    "model_max_length": 64,
    "vocab_size": 125_696,
}
CONFIGS["baichuan2-13b"] = {**CONFIGS["baichuan-13b"], "vocab_size": 125_696}
CONFIGS["chatglm3"] = {
    **CONFIGS["chatglm2"],
    "attention_dropout": 0.0,
    "bias_dropout_fusion": True,
    "hidden_dropout": 0.0,
}


def original_tensors(family: str) -> dict[str, torch.Tensor]:
    """Weights by the original's names, buffers included where its checkpoints hold them."""
    if family.startswith("chatglm"):
        shapes = _chatglm2_shapes() if family in ("chatglm2", "chatglm3") else _chatglm6b_shapes()
    else:
        shapes = _moss_shapes() if family == "moss" else _llama_shapes(family)
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def save_original(folder: Path, family: str, form: str = "safetensors") -> Path:
    """A checkpoint folder as published; `form` is `safetensors`, `bin`, or `sharded` (two .bin files and an index)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[family]), encoding="utf-8")
    tensors = original_tensors(family)
    if form == "safetensors":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif form == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        _save_shards(folder, tensors)
    return folder


def golden_logits(family: str) -> list[torch.Tensor]:
    """What the original code computed: one [tokens, vocabulary] tensor a row of `INPUTS`; of larger vocabularies the
    first `VOCAB` entries."""
    return [torch.tensor(row) for row in json.loads(GOLDEN.read_text(encoding="utf-8"))[family]]


def _save_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    names = list(tensors)
    shards = {"a.bin": names[: len(names) // 2], "b.bin": names[len(names) // 2 :]}
    for file, chosen in shards.items():
        torch.save({name: tensors[name] for name in chosen}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, chosen in shards.items() for name in chosen}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")


def _tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if name.endswith("causal_mask"):
        return torch.ones(shape, dtype=torch.bool).tril()
    if name.endswith("inv_freq"):
        dim = 2 * shape[0]
        return 1.0 / 10000 ** (torch.arange(0, dim, 2).float() / dim)
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) * 0.15
    if len(shape) == 1 and name.endswith("weight"):
        values = 1 + values  # norms
    return torch.from_numpy(values).float()


def _llama_shapes(family: str) -> dict[str, tuple[int, ...]]:
    vocabulary = CONFIGS[family]["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        if family.startswith("internlm"):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                shapes[f"{layer}.self_attn.{name}.weight"] = (HIDDEN, HIDDEN)
                shapes[f"{layer}.self_attn.{name}.bias"] = (HIDDEN,)
        else:
            shapes[f"{layer}.self_attn.W_pack.weight"] = (3 * HIDDEN, HIDDEN)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (HIDDEN, HIDDEN)
        if family in ("baichuan-7b", "internlm"):
            shapes[f"{layer}.self_attn.rotary_emb.inv_freq"] = (HIDDEN // HEADS // 2,)
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[f"{layer}.mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (HIDDEN,)
    return {**shapes, "model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def _with_bias(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def _moss_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (VOCAB, HIDDEN)}
    for index in range(LAYERS):
        layer = f"transformer.h.{index}"
        shapes |= _with_bias(f"{layer}.ln_1", HIDDEN)
        shapes[f"{layer}.attn.causal_mask"] = (1, 1, 64, 64)
        shapes[f"{layer}.attn.qkv_proj.weight"] = (3 * HIDDEN, HIDDEN)
        shapes[f"{layer}.attn.out_proj.weight"] = (HIDDEN, HIDDEN)
        shapes |= _with_bias(f"{layer}.mlp.fc_in", 4 * HIDDEN, HIDDEN)
        shapes |= _with_bias(f"{layer}.mlp.fc_out", HIDDEN, 4 * HIDDEN)
    return {**shapes, **_with_bias("transformer.ln_f", HIDDEN), **_with_bias("lm_head", VOCAB, HIDDEN)}


def _chatglm2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.embedding.word_embeddings.weight": (VOCAB, HIDDEN),
        "transformer.rotary_pos_emb.inv_freq": (4,),
    }
    for index in range(LAYERS):
        layer = f"transformer.encoder.layers.{index}"
        shapes |= _with_bias(f"{layer}.self_attention.query_key_value", HIDDEN + 2 * 2 * 16, HIDDEN)
        shapes[f"{layer}.self_attention.dense.weight"] = (HIDDEN, HIDDEN)
        shapes[f"{layer}.mlp.dense_h_to_4h.weight"] = (2 * INNER, HIDDEN)
        shapes[f"{layer}.mlp.dense_4h_to_h.weight"] = (HIDDEN, INNER)
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (HIDDEN,)
    return {
        **shapes,
        "transformer.encoder.final_layernorm.weight": (HIDDEN,),
        "transformer.output_layer.weight": (VOCAB, HIDDEN),
    }


def _chatglm6b_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"transformer.word_embeddings.weight": (VOCAB, HIDDEN)}
    for index in range(LAYERS):
        layer = f"transformer.layers.{index}"
        shapes |= _with_bias(f"{layer}.input_layernorm", HIDDEN)
        shapes[f"{layer}.attention.rotary_emb.inv_freq"] = (HIDDEN // HEADS // 4,)
        shapes |= _with_bias(f"{layer}.attention.query_key_value", 3 * HIDDEN, HIDDEN)
        shapes |= _with_bias(f"{layer}.attention.dense", HIDDEN, HIDDEN)
        shapes |= _with_bias(f"{layer}.post_attention_layernorm", HIDDEN)
        shapes |= _with_bias(f"{layer}.mlp.dense_h_to_4h", INNER, HIDDEN)
        shapes |= _with_bias(f"{layer}.mlp.dense_4h_to_h", HIDDEN, INNER)
    return {**shapes, **_with_bias("transformer.final_layernorm", HIDDEN), "lm_head.weight": (VOCAB, HIDDEN)}
