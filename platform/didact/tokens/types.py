"""Token-level types that cross into training, evaluation and serving."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sample:
    """One conversation as tokens."""

    ids: np.ndarray
    """int32 [length]: token ids."""
    mask: np.ndarray
    """bool [length]: True where the token is learned (as a target, before the shift by one)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One micro-batch, as tensors for one forward pass.

    Packed: one row holds all samples, `position_ids` restart at each (see `pack`), `attention_mask` is None.
    Padded: one sample a row, `attention_mask` marks real tokens.
    """

    input_ids: "torch.Tensor"
    """int64 [rows, length]."""
    position_ids: "torch.Tensor"
    """int64 [rows, length]."""
    attention_mask: "torch.Tensor | None"
    """int64 [rows, length], 1 for real tokens; None when packed."""
    targets: "torch.Tensor"
    """int64 [rows, length]: the token to predict at each position (already shifted), -100 where nothing is learned."""
    num_tokens: int
    """Real tokens of the samples, without padding."""
    num_supervised: int
    """Positions with a target."""

    @property
    def num_positions(self) -> int:
        """What is computed: with padding, and first tokens that samples share once."""
        return self.input_ids.numel()

    def without_targets(self) -> "Batch":
        """The same batch with nothing to learn: its loss and gradients are zero."""
        return replace(self, targets=self.targets.new_full(self.targets.shape, -100), num_supervised=0)


@dataclass(frozen=True, slots=True)
class StepBatches:
    """What one worker computes for one optimizer step."""

    micro_batches: tuple[Batch, ...]
    """This worker's share; may be empty when the share is smaller than the world."""
    num_supervised: int
    """Targets of the *global* batch, over all workers: the loss is the sum over targets divided by this."""
    num_tokens: int
    """Real tokens of the global batch."""
    sample_ids: tuple[str, ...]
    """`source/row` of the global batch's samples in mixture order."""
    targets_of: tuple[int, ...] = ()
    """Targets of the global batch by source, in the mixture's order; none where sources are not told apart."""
    sources: tuple[np.ndarray, ...] = ()
    """int64 [targets] for each of `micro_batches`: the source of each target, in the order of the batch's targets."""
