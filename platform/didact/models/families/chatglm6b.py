"""ChatGLM-6B, the first: an architecture of its own, see `glm6b`."""

from pathlib import Path
from typing import Any

import torch
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from transformers import PreTrainedTokenizerFast

from didact.models.families.family import Config, Family, Tensors, require, shared_fields
from didact.models.families.glm6b import Glm6bConfig
from didact.models.families.sentencepieces import (
    model_file,
    piece_decoder,
    piece_model,
    piece_normalizer,
    tokenizer_settings,
    wrapped,
)

_EXPECTED = {"position_encoding_2d": True, "pre_seq_len": None, "quantization_bit": 0}
_IMAGE_TOKENS, _IMAGE_VOCABULARY = 20_000, 150_528
"""The first release kept room for image tokens before the words; later ones have a vocabulary of 130,528."""
_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>")
_LONGEST_BLANK = 80
_BLANKS = {length: f"<|blank_{length}|>" for length in range(_LONGEST_BLANK, 1, -1)}
_PLAIN, _USER_DEFINED, _BYTE = 1, 4, 6


def _config(config: Config) -> Glm6bConfig:
    require("chatglm", config, _EXPECTED)
    offset = _IMAGE_TOKENS if config["vocab_size"] == _IMAGE_VOCABULARY else 0
    return Glm6bConfig(
        **shared_fields(config, "vocab_size", "hidden_size", "num_attention_heads", "bos_token_id", "eos_token_id"),
        intermediate_size=config["inner_hidden_size"],
        num_hidden_layers=config["num_layers"],
        max_position_embeddings=config["max_sequence_length"],
        layer_norm_eps=config["layernorm_epsilon"],
        mask_token_id=config.get("mask_token_id", 130_000 + offset),
        gmask_token_id=config.get("gmask_token_id", 130_001 + offset),
        pad_token_id=config.get("pad_token_id", 3 + offset),
    )


def _tensors(_config: Config, name: str, tensor: torch.Tensor) -> Tensors:
    return {} if name.endswith("rotary_emb.inv_freq") else {name: tensor}


def _tokenizer(folder: Path, config: Config) -> PreTrainedTokenizerFast:
    """ice_text.model with the pieces that the original adds when it starts; `[gMASK] <sop>` after each text."""
    file = model_file(folder, "ice_text.model")
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(file.read_bytes())
    complete_pieces(proto)
    if config["vocab_size"] == _IMAGE_VOCABULARY:
        _make_room_for_images(proto)
    tokenizer = Tokenizer(piece_model(proto, file))
    tokenizer.normalizer = normalizers.Sequence([*_marked_blanks(), piece_normalizer(proto.normalizer_spec)])
    blanks = [decoders.Replace(token, " " * length) for length, token in _BLANKS.items()]
    marks = [decoders.Replace("<n>", "\n"), decoders.Replace("<|tab|>", "\t"), *blanks]
    tokenizer.decoder = decoders.Sequence([piece_decoder(proto.normalizer_spec.add_dummy_prefix), *marks])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in _SPECIAL])
    suffix = [(token, tokenizer.token_to_id(token)) for token in ("[gMASK]", "<sop>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [gMASK] <sop>", pair="$A $B [gMASK] <sop>", special_tokens=suffix
    )
    special = {"bos_token": "<sop>", "eos_token": "<eop>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return wrapped(tokenizer, tokenizer_settings(folder), special)


def complete_pieces(proto: Any) -> None:
    """Append special tokens, blanks and bytes to a parsed model file, where it does not hold them yet."""
    present = {piece.piece for piece in proto.pieces}
    blanks = [_BLANKS[length] for length in range(2, _LONGEST_BLANK + 1)]
    added = [*((token, _PLAIN) for token in _SPECIAL), *((token, _USER_DEFINED) for token in ("<|tab|>", *blanks))]
    added += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    for token, kind in added:
        if token not in present:
            proto.pieces.add(piece=token, score=0.0, type=kind)
    proto.trainer_spec.byte_fallback = True


def _make_room_for_images(proto: Any) -> None:
    words = list(proto.pieces)
    lowest = min(piece.score for piece in words)
    del proto.pieces[:]
    for number in range(_IMAGE_TOKENS):
        proto.pieces.add(piece=f"<image_{number}>", score=lowest, type=_PLAIN)
    proto.pieces.extend(words)
    proto.trainer_spec.unk_id += _IMAGE_TOKENS


def _marked_blanks() -> list[normalizers.Normalizer]:
    blanks = [normalizers.Replace(" " * length, token) for length, token in _BLANKS.items()]
    return [normalizers.Replace("\n", "<n>"), normalizers.Replace("\t", "<|tab|>"), *blanks]


FAMILY = Family("chatglm-6b", _config, _tensors, _tokenizer)
