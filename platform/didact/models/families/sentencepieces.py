"""SentencePiece model files as fast tokenizers that give the same ids."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges

from didact.errors import ModelError
from didact.models.families.family import Config

_CONTROL, _USER_DEFINED = 3, 4
_UNIGRAM, _BPE = 1, 2
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_GLM_TOKENS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_GLM3_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_PROBES = (
    "The quick brown fox: 12,345.67 times!",
    "  two spaces, a tab\tand\na newline ",
    "中文分词，标点。“引号”与 English 混排 2024年",  # noqa: RUF001
    "def f(x):\n    return x ** 2  # naïve café 🙂",
)


def llama_like_tokenizer(folder: Path, _config: Config) -> PreTrainedTokenizerFast:
    """Baichuan's and InternLM's: the model file, a BOS token before each text unless the folder says otherwise."""
    settings = tokenizer_settings(folder)
    file = model_file(folder)
    tokenizer = fast_tokenizer(file)
    pieces = SentencePieceProcessor(model_file=str(file))
    named = {"bos_token": pieces.bos_id(), "eos_token": pieces.eos_id(), "unk_token": pieces.unk_id()}
    special = {name: pieces.id_to_piece(token_id) for name, token_id in named.items() if token_id >= 0}
    special |= _named_tokens(settings)
    if settings.get("add_bos_token", True):
        bos = special["bos_token"]
        tokenizer.post_processor = _prefixed(bos, (bos,), tokenizer)
    return wrapped(tokenizer, settings, special)


def glm_tokenizer(folder: Path, _config: Config) -> PreTrainedTokenizerFast:
    """ChatGLM2's and 3's: five tokens after the model file's (and 3's roles), `[gMASK] sop` before each text."""
    settings = tokenizer_settings(folder)
    tokenizer = fast_tokenizer(model_file(folder))
    roles = _GLM3_ROLES if "<|user|>" in json.dumps(settings) else ()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_GLM_TOKENS, *roles)])
    tokenizer.post_processor = _prefixed("[gMASK] sop", ("[gMASK]", "sop"), tokenizer)
    return wrapped(tokenizer, settings, {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"})


def fast_tokenizer(file: Path, probes: Sequence[str] = _PROBES) -> Tokenizer:
    """A tokenizer with the pieces, normalisation and byte fallback of a SentencePiece model.

    Raises:
        ModelError: not such a file, of a kind that has no exact equal, or ids that differ on one of `probes`.
    """
    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(file.read_bytes())
    tokenizer = Tokenizer(piece_model(proto, file))
    tokenizer.normalizer = piece_normalizer(proto.normalizer_spec)
    tokenizer.decoder = piece_decoder(proto.normalizer_spec.add_dummy_prefix)
    control = [piece.piece for piece in proto.pieces if piece.type == _CONTROL]
    defined = [piece.piece for piece in proto.pieces if piece.type == _USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in control])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in defined])
    original = SentencePieceProcessor(model_file=str(file))
    for probe in probes:
        found, expected = tokenizer.encode(probe, add_special_tokens=False).ids, original.encode(probe)
        if found != expected:
            raise ModelError(f"{file} cannot be converted exactly: {probe!r} gives {found}, the original {expected}")
    return tokenizer


def piece_model(proto: Any, file: Path) -> models.Model:
    """The BPE or unigram model of a parsed file."""
    scores = [(piece.piece, piece.score) for piece in proto.pieces]
    fallback = proto.trainer_spec.byte_fallback
    if proto.trainer_spec.model_type == _UNIGRAM:
        return models.Unigram(scores, unk_id=proto.trainer_spec.unk_id, byte_fallback=fallback)
    if proto.trainer_spec.model_type != _BPE:
        raise ModelError(f"{file} is a SentencePiece model of words or characters; expected BPE or unigram")
    vocabulary = {piece: index for index, (piece, _) in enumerate(scores)}
    plain = [(piece.piece, piece.score) for piece in proto.pieces if piece.type not in (_CONTROL, _USER_DEFINED)]
    merges = generate_merges(vocabulary, plain)
    unknown = proto.trainer_spec.unk_piece
    return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=fallback)


def model_file(folder: Path, name: str = "tokenizer.model") -> Path:
    """The SentencePiece file of an original folder."""
    file = folder / name
    if not file.is_file():
        raise ModelError(f"{folder} has no {name}; expected the original's tokenizer beside its weights")
    return file


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing."""
    file = folder / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def wrapped(
    tokenizer: Tokenizer, settings: Mapping[str, Any], special: Mapping[str, str], side: str = "right"
) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers loads it, with the original's chat template and length."""
    kept = {name: settings[name] for name in ("chat_template", "model_max_length") if settings.get(name)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, padding_side=side, **special, **kept
    )


def _named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    named = {name: settings[name] for name in _SPECIAL if settings.get(name)}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in named.items()}


def piece_normalizer(spec: Any) -> normalizers.Normalizer:
    """What a SentencePiece model does to text before it looks for pieces."""
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])


def piece_decoder(dummy_prefix: bool) -> decoders.Decoder:
    """Pieces back to text; `dummy_prefix` takes off the blank that encoding put before it."""
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if dummy_prefix else steps)


def _prefixed(prefix: str, tokens: Sequence[str], tokenizer: Tokenizer) -> processors.TemplateProcessing:
    ids = [(token, tokenizer.token_to_id(token)) for token in tokens]
    return processors.TemplateProcessing(single=f"{prefix} $A", pair=f"{prefix} $A $B", special_tokens=ids)
