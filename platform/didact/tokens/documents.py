"""Plain text -> samples for continued pretraining: every token is learned and nothing is cut away."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from didact.tokens.types import Sample


def encode_documents(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[tuple[Sample, ...]]:
    """Each text as one or more samples of at most `max_length` tokens; empty for a text without tokens.

    The text ends with EOS and begins with BOS where the tokenizer puts one. A sample that goes on with a text begins
    with the last token of the sample before, as context that is not learned again: so every token of the text but the
    very first is learned exactly once. Text of special tokens is encoded as plain text.
    """
    if not texts:
        return []
    first = _beginning(tokenizer)
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return [split([*first, *ids, tokenizer.eos_token_id], max_length) if ids else () for ids in encoded]


def split(ids: Sequence[int], max_length: int) -> tuple[Sample, ...]:
    """Samples of at most `max_length` tokens, each but the first beginning with the one before's last token."""
    tokens = np.array(ids, dtype=np.int32)
    samples = []
    for start in range(0, len(tokens) - 1, max_length - 1):
        piece = tokens[start : start + max_length].copy()
        mask = np.ones(len(piece), dtype=bool)
        mask[0] = False
        samples.append(Sample(piece, mask))
    return tuple(samples)


def _beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    starts_with_bos = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return [tokenizer.bos_token_id] if starts_with_bos else []
