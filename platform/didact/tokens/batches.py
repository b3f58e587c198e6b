"""Samples -> tensors: packed into one row, or padded one a row. Both count and predict the same targets."""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from didact.tokens.types import Batch, Sample

if TYPE_CHECKING:
    import torch

NO_TARGET = -100
"""The target that cross-entropy passes over."""


SHORTEST_SHARED = 16
"""Tokens that samples must begin with alike to share them: fewer save less than they cost."""


def pack(samples: Sequence[Sample], *, share_prefixes: bool = False) -> Batch:
    """All samples in one row; positions restart at each, so attention keeps them apart.

    Without an attention mask and with `use_cache=False`, transformers finds the borders where `position_ids` restart.

    Args:
        samples: in their order.
        share_prefixes: leave out the first tokens of a sample that the last one before it which is whole begins with
            as well: the same system prompt, the same words of a template. Its positions then begin behind them, and
            attention has to show it those (`models.shares_prefixes`). What is learned stays, in the same order.

    Returns:
        A row [1, sum of lengths], without what is left out.
    """
    import torch  # here, since data is looked at without it

    shared = shared_prefixes(samples) if share_prefixes else [0] * len(samples)
    pairs = list(zip(samples, shared, strict=True))
    ids = np.concatenate([sample.ids[first:] for sample, first in pairs]).astype(np.int64)
    positions = np.concatenate([np.arange(first, len(sample.ids), dtype=np.int64) for sample, first in pairs])
    targets = np.concatenate([_targets(sample)[first:] for sample, first in pairs])
    return Batch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        attention_mask=None,
        targets=torch.from_numpy(targets)[None],
        num_tokens=len(ids) + sum(shared),
        num_supervised=int((targets != NO_TARGET).sum()),
    )


def pad(samples: Sequence[Sample], pad_id: int) -> Batch:
    """One sample a row `[samples, longest]`, filled up on the right with `pad_id`: the plain twin of `pack`."""
    import torch

    shape = (len(samples), max(len(sample.ids) for sample in samples))
    ids = np.full(shape, pad_id, dtype=np.int64)
    attention = np.zeros(shape, dtype=np.int64)
    targets = np.full(shape, NO_TARGET, dtype=np.int64)
    for row, sample in enumerate(samples):
        length = len(sample.ids)
        ids[row, :length] = sample.ids
        attention[row, :length] = 1
        targets[row, :length] = _targets(sample)
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int64), shape).copy()
    return Batch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=torch.from_numpy(attention),
        targets=torch.from_numpy(targets),
        num_tokens=int(attention.sum()),
        num_supervised=int((targets != NO_TARGET).sum()),
    )


def join_rows(batches: Sequence[Batch]) -> Batch:
    """Packed batches as one packed row, in their order; one alone stays as it is."""
    if len(batches) == 1:
        return batches[0]
    import torch

    return Batch(
        input_ids=torch.cat([batch.input_ids for batch in batches], dim=1),
        position_ids=torch.cat([batch.position_ids for batch in batches], dim=1),
        attention_mask=None,
        targets=torch.cat([batch.targets for batch in batches], dim=1),
        num_tokens=sum(batch.num_tokens for batch in batches),
        num_supervised=sum(batch.num_supervised for batch in batches),
    )


def supervised_positions(batch: Batch) -> "torch.Tensor":
    """int64 [kept]: columns in which any row has a target.

    As `logits_to_keep` they spare the vocabulary projection of all others; `batch.targets[:, kept]` are their targets.
    """
    return (batch.targets != NO_TARGET).any(dim=0).nonzero().squeeze(1)


def shared_prefixes(samples: Sequence[Sample]) -> list[int]:
    """How many first tokens each sample has in common with the last whole one before it, and need not bring along.

    From the token on that predicts its first learned one, a sample is its own.
    """
    whole, shared = samples[0], [0]
    for before, sample in itertools.pairwise(samples):
        learned = np.flatnonzero(sample.mask[1:])  # of the targets
        most = min(int(learned[0]) if len(learned) else len(sample.ids) - 1, len(whole.ids))
        apart = np.flatnonzero(sample.ids[:most] != whole.ids[:most])
        alike = int(apart[0]) if len(apart) else most
        if shared[-1] and alike == len(before.ids):
            alike -= 1  # else its positions would go on where those of the one before it end
        shared.append(alike if alike >= SHORTEST_SHARED else 0)
        whole = whole if shared[-1] else sample
    return shared


def _targets(sample: Sample) -> np.ndarray:
    """int64 [length]: at each position the next token where that one is learned; the last position has none."""
    targets = np.full(len(sample.ids), NO_TARGET, dtype=np.int64)
    targets[:-1] = np.where(sample.mask[1:], sample.ids[1:], NO_TARGET)
    return targets
