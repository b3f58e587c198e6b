"""SentencePiece models trained on a few lines of text."""

import io
from pathlib import Path

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

CORPUS = [
    "The cat sat on the mat and the dog ran after the cat.",
    "Numbers like 12 and 2024 are split, sometimes.",
    "猫坐在垫子上。狗在追猫。",
    "def f(x): return x + 1",
] * 30


def train(file: Path, **changes: object) -> SentencePieceProcessor:
    model = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 420,
        "byte_fallback": True,
        "character_coverage": 0.999,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
        "num_threads": 1,
    }
    SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, **{**settings, **changes})
    file.write_bytes(model.getvalue())
    return SentencePieceProcessor(model_proto=model.getvalue())
