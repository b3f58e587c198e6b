"""MOSS is CodeGen with another vocabulary."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import CodeGenConfig, PreTrainedTokenizerFast

from didact.errors import ModelError
from didact.models.families.family import Config, Family, Tensors, require, shared_fields

_SHARED = (
    *("vocab_size", "n_positions", "n_ctx", "n_embd", "n_layer", "n_head", "n_inner", "rotary_dim", "resid_pdrop"),
    *("activation_function", "embd_pdrop", "attn_pdrop", "layer_norm_epsilon", "initializer_range", "bos_token_id"),
    *("eos_token_id", "tie_word_embeddings"),
)


def _config(config: Config) -> CodeGenConfig:
    require("moss", config, {"wbits": 32})
    return CodeGenConfig(**shared_fields(config, *_SHARED))


def _tensors(_config: Config, name: str, tensor: torch.Tensor) -> Tensors:
    return {} if name.endswith("attn.causal_mask") else {name: tensor}


def _tokenizer(folder: Path, _config: Config) -> PreTrainedTokenizerFast:
    """GPT-2's byte-level BPE from vocab.json and merges.txt, with the tokens of added_tokens.json at their ids."""
    files = [folder / "vocab.json", folder / "merges.txt"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ModelError(f"{folder} has no {missing[0]}; expected the tokenizer files of a MOSS model")
    tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token, token_id in sorted(_added(folder).items(), key=lambda item: item[1]):
        tokenizer.add_special_tokens([AddedToken(token, normalized=False)])
        if tokenizer.token_to_id(token) != token_id:
            raise ModelError(f"{folder}/added_tokens.json gives {token!r} the id {token_id}, which leaves a gap")
    special = {name: token for name, token in _special(folder).items() if tokenizer.token_to_id(token) is not None}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def _added(folder: Path) -> dict[str, int]:
    file = folder / "added_tokens.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _special(folder: Path) -> dict[str, str]:
    file = folder / "special_tokens_map.json"
    written = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    chosen = {"bos_token": "<|endoftext|>", "eos_token": "<eom>", "unk_token": "<|endoftext|>"} | {
        name: token["content"] if isinstance(token, dict) else token
        for name, token in written.items()
        if name in ("bos_token", "eos_token", "unk_token", "pad_token")
    }
    return chosen


FAMILY = Family("moss", _config, _tensors, _tokenizer)
