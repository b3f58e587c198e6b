"""Which characters a token of byte-level BPE covers, told from the tokens' own lengths.

Tokenizers that look for nothing but ids are a quarter faster than those that keep every token's place in the text. Here
each byte of a text is in exactly one token, so places are sums of lengths.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from didact.tokens.types import Sample

Spans = Sequence[tuple[int, int]]


def samples_by_bytes(
    texts: Sequence[str], spans: Sequence[Spans], tokenizer: PreTrainedTokenizerBase
) -> list[Sample] | None:
    """Tokens of texts, without special ones, and masks of those that overlap a span.

    Args:
        texts: at least one.
        spans: of each text, the characters to learn as [start, end).
        tokenizer: neither padding nor truncating.

    Returns:
        One sample a text; None where the tokenizer is not known to keep every byte of a text.
    """
    lengths = _byte_lengths(tokenizer, len(tokenizer))
    if lengths is None:
        return None
    found = [
        encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]
    ids = np.fromiter(chain.from_iterable(found), dtype=np.int32)
    ends = np.concatenate([[0], np.cumsum(lengths[ids])])
    firsts = np.concatenate([[0], np.cumsum([len(each) for each in found])])
    begins = np.concatenate([[0], np.cumsum([_size(text) for text in texts])])
    if not np.array_equal(ends[firsts], begins):
        return None
    mask = np.zeros(len(ids), dtype=bool)
    edges = [
        (begin + _size(text[:start]), begin + _size(text[:end]))
        for text, begin, within in zip(texts, begins[:-1].tolist(), spans, strict=True)
        for start, end in within
    ]
    starts, stops = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    first, after = np.searchsorted(ends[1:], starts, side="right"), np.searchsorted(ends[:-1], stops, side="left")
    for begin, stop in zip(first.tolist(), after.tolist(), strict=True):
        mask[begin:stop] = True
    return [Sample(ids[begin:stop], mask[begin:stop]) for begin, stop in pairwise(firsts.tolist())]


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


@lru_cache(maxsize=4)
def _byte_lengths(tokenizer: PreTrainedTokenizerBase, _num_tokens: int) -> np.ndarray | None:
    """int64 [ids]: bytes of a text that a token stands for; None where it may stand for others."""
    backend = tokenizer.backend_tokenizer
    vocabulary, added = backend.get_vocab(), backend.get_added_tokens_decoder()
    if not _keeps_bytes(backend):
        return None
    # Without a mark for the unknown, bytes that are no token are left out, and the sum of lengths tells.
    if backend.model.unk_token is not None and not vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        return None
    if any(token.lstrip or token.rstrip for token in added.values()):
        return None
    lengths = np.zeros(max(vocabulary.values()) + 1, dtype=np.int64)
    for text, number in vocabulary.items():
        # A letter of the vocabulary is a byte, but added tokens are written as they are.
        lengths[number] = len(text.encode()) if number in added else len(text)
    return lengths


def _keeps_bytes(backend: Tokenizer) -> bool:
    if backend.normalizer is not None or type(backend.model).__name__ != "BPE":
        return False
    if backend.model.continuing_subword_prefix or backend.model.end_of_word_suffix:
        return False
    steps = _settings(backend.pre_tokenizer)
    steps = steps.get("pretokenizers", [steps])
    # Such a step takes white space out of the places that tokens are said to have.
    trims = "trim_offsets" in str(_settings(backend.post_processor)).replace("'trim_offsets': False", "")
    return bool(steps) and steps[-1].get("type") == "ByteLevel" and not steps[-1]["add_prefix_space"] and not trims


def _settings(component: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(component.__getstate__()) if component is not None else {}
    return found
