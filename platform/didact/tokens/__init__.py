"""Conversations as tokens: what the model reads, and which of it is learned.

    Dataset -> TemplateContract -> encode -> Sample -> shards (cached) -> TokenTable -> StepLoader -> StepBatches

Example:
    >>> from didact.tokens import Sample, pack
    >>> import numpy as np
    >>> batch = pack([Sample(np.array([5, 6, 7], np.int32), np.array([False, False, True]))])
    >>> batch.targets.tolist(), batch.num_supervised
    ([[-100, 7, -100]], 1)
"""

from didact.tokens.batches import NO_TARGET, join_rows, pack, pad, supervised_positions
from didact.tokens.counts import TokenCount, TokenEstimate, count_tokens, estimate_tokens
from didact.tokens.encode import Encoded, Rejection, encode, encode_all
from didact.tokens.loader import StepLoader, deal
from didact.tokens.preview import marked, preview
from didact.tokens.table import TokenStats, TokenTable, ViewAddress, open_table, view_table
from didact.tokens.template import CONTRACT_FILE, TemplateContract, tokenizer_digest
from didact.tokens.types import Batch, Sample, StepBatches

__all__ = [
    "CONTRACT_FILE",
    "NO_TARGET",
    "Batch",
    "Encoded",
    "Rejection",
    "Sample",
    "StepBatches",
    "StepLoader",
    "TemplateContract",
    "TokenCount",
    "TokenEstimate",
    "TokenStats",
    "TokenTable",
    "ViewAddress",
    "count_tokens",
    "deal",
    "encode",
    "encode_all",
    "estimate_tokens",
    "join_rows",
    "marked",
    "open_table",
    "pack",
    "pad",
    "preview",
    "supervised_positions",
    "tokenizer_digest",
    "view_table",
]
