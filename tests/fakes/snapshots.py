"""What the hub's cache holds of a base whose weights were not downloaded: configuration and tokenizer."""

import json
from pathlib import Path

from transformers import AutoConfig
from transformers.convert_slow_tokenizer import bytes_to_unicode

from didact.gpu_proof.tokenizer import byte_tokenizer
from tests.fakes.models import FAMILIES
from tests.fakes.originals import CONFIGS
from tests.fakes.sentencepieces import train

_SIZES = {"vocab_size": 512, "padded_vocab_size": 512, "n_positions": 1024, "n_ctx": 1024}
"""Room for the tokenizers below, and for the samples of recipes."""


def cache_snapshot(cache: Path, hub_id: str, family: str) -> Path:
    """Write a tiny base of `family` as the snapshot of `hub_id`.

    Args:
        cache: the hub's cache, as `HF_HUB_CACHE` names it.
        hub_id: `OWNER/NAME`.
        family: one of transformers' (`FAMILIES`), or one of those that are converted (`CONFIGS`).

    Returns:
        The snapshot's folder.
    """
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    folder = repository / "snapshots" / "0"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0", encoding="utf-8")
    folder.mkdir(parents=True)
    if family in CONFIGS:
        sizes = {name: size for name, size in _SIZES.items() if name in CONFIGS[family]}
        (folder / "config.json").write_text(json.dumps(CONFIGS[family] | sizes), encoding="utf-8")
        _save_original_tokenizer(folder, family)
    else:
        special = {"bos_token_id": None, "eos_token_id": 256, "pad_token_id": 257}
        config = AutoConfig.for_model(family, **FAMILIES[family], **special)
        config.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
    return folder


def _save_original_tokenizer(folder: Path, family: str) -> None:
    if family == "moss":
        words = [*bytes_to_unicode().values(), "th", "<|endoftext|>"]
        vocabulary = {word: index for index, word in enumerate(words)}
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\nt h\n", encoding="utf-8")
        added = {"<eoh>": len(words), "<eom>": len(words) + 1}
        (folder / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    elif family == "chatglm-6b":
        unigram = {"model_type": "unigram", "vocab_size": 150, "hard_vocab_limit": False, "byte_fallback": False}
        marks = {"user_defined_symbols": ["<n>"], "control_symbols": ["<pad>"]}
        train(folder / "ice_text.model", **unigram, **marks)
    else:
        train(folder / "tokenizer.model")
