"""Conversations as tokens: what the model reads, and which of it is learned.

    Dataset -> TemplateContract -> encode -> Sample -> shards (cached) -> TokenTable -> StepLoader -> StepBatches

Example:
    >>> from didact.tokens import Sample, pack
    >>> import numpy as np
    >>> batch = pack([Sample(np.array([5, 6, 7], np.int32), np.array([False, False, True]))])
    >>> batch.targets.tolist(), batch.num_supervised
    ([[-100, 7, -100]], 1)
"""

from didact.tokens.batches import NO_TARGET, pack, pad, supervised_positions
from didact.tokens.cache import Encoder, PartDone, PartJob, Runner, prepare_source, run_here, run_job, tokenize
from didact.tokens.counts import TokenCount, TokenEstimate, count_tokens, estimate_tokens
from didact.tokens.encode import Encoded, Rejection, encode, encode_all
from didact.tokens.loader import StepLoader, deal
from didact.tokens.prepared import PreparedMixture, mix, prepare_mixture
from didact.tokens.preview import preview
from didact.tokens.table import TokenStats, TokenTable, ViewPlace, open_table, view_table
from didact.tokens.template import CONTRACT_FILE, TemplateContract, tokenizer_digest
from didact.tokens.types import Batch, Sample, StepBatches

__all__ = [
    "CONTRACT_FILE",
    "NO_TARGET",
    "Batch",
    "Encoded",
    "Encoder",
    "PartDone",
    "PartJob",
    "PreparedMixture",
    "Rejection",
    "Runner",
    "Sample",
    "StepBatches",
    "StepLoader",
    "TemplateContract",
    "TokenCount",
    "TokenEstimate",
    "TokenStats",
    "TokenTable",
    "ViewPlace",
    "count_tokens",
    "deal",
    "encode",
    "encode_all",
    "estimate_tokens",
    "mix",
    "open_table",
    "pack",
    "pad",
    "prepare_mixture",
    "prepare_source",
    "preview",
    "run_here",
    "run_job",
    "supervised_positions",
    "tokenize",
    "tokenizer_digest",
    "view_table",
]
