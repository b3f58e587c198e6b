"""The loss: summed cross-entropy over supervised positions, projecting only those onto the vocabulary."""

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from didact.models import base_of, row_bounds
from didact.tokens import Batch, StepBatches, join_rows
from didact.training.head_loss import frozen_head, losses_as_logits


@dataclass(frozen=True, slots=True)
class Losses:
    """The cross-entropy of one batch."""

    summed: torch.Tensor
    """Over the batch's targets: float32 scalar with gradient."""
    of_targets: torch.Tensor
    """float32 [targets] without gradient, in the order of the batch's targets."""


@dataclass(frozen=True, slots=True)
class StepLoss:
    """A worker's part of a step's loss."""

    mean: torch.Tensor
    """float32 scalar: the sum over its targets, divided by the targets of the global batch."""
    by_source: torch.Tensor
    """float32 [sources]: sums over its targets; empty where there is one source, which is the mean again."""

    @classmethod
    def of(cls, mean: torch.Tensor, batches: StepBatches, of_targets: Sequence[torch.Tensor]) -> "StepLoss":
        """
        Args:
            mean: float32 scalar.
            batches: of the step.
            of_targets: losses of the targets of each micro-batch.
        """
        num_sources = len(batches.targets_of)
        if num_sources < 2:
            return cls(mean, mean.new_zeros(0))
        summed: np.ndarray = np.zeros(num_sources)
        if of_targets:
            losses = torch.cat(list(of_targets)).double().cpu().numpy()
            summed = np.bincount(np.concatenate(batches.sources), weights=losses, minlength=num_sources)
        return cls(mean, torch.from_numpy(summed).to(mean))


class Objective:
    """Computes the summed loss of a batch with one model.

    The mean is taken over the *global* batch by the caller, so accumulation, packing, padding and the number of workers
    do not change the loss.
    """

    def __init__(self, model: torch.nn.Module, compute_dtype: torch.dtype, device: torch.device | None = None) -> None:
        """
        Args:
            model: computes the logits.
            compute_dtype: of the matrix products.
            device: where batches go; default where the model lies.
        """
        base = base_of(model)
        self._model, self._base = model, base
        self.device = device or next(model.parameters()).device
        self._selects_positions = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._compute_dtype = compute_dtype
        self._head = frozen_head(model, compute_dtype, self.device) if self._selects_positions else None

    def summed_loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the cross-entropy over the batch's targets, float32 scalar with gradient."""
        return self.losses(batch).summed

    def losses(self, batch: Batch) -> Losses:
        """The loss of a batch."""
        if batch.attention_mask is None and self._selects_positions:
            return self.losses_of([batch])[0]
        with self._autocast():
            logits, targets = self._all_positions(batch)
        each = functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="none")
        learned = torch.nonzero(batch.targets.flatten() != -100).squeeze(1).to(self.device)
        return Losses(each.sum(), each.detach()[learned])

    def losses_of(self, batches: Sequence[Batch]) -> list[Losses]:
        """The loss of each of several packed batches, computed in one row."""
        row = join_rows(batches)
        positions = torch.nonzero(row.targets[0] != -100).squeeze(1)
        targets = row.targets[0, positions].to(self.device).split([batch.num_supervised for batch in batches])
        with self._autocast():
            if self._head is not None:
                with losses_as_logits(self._head, targets) as of_targets:
                    summed = self._packed(row, positions)
                return [Losses(*each) for each in zip(summed, of_targets, strict=True)]
            if self._selects_positions:
                logits = self._packed(row, positions)
            else:
                logits = self._all_positions(row)[0][positions.to(self.device)]
        parts = logits.float().split([len(wanted) for wanted in targets])
        losses = [functional.cross_entropy(*part, reduction="none") for part in zip(parts, targets, strict=True)]
        return [Losses(each.sum(), each.detach()) for each in losses]

    def _packed(self, batch: Batch, positions: torch.Tensor) -> torch.Tensor:
        """Logits [num_positions, vocabulary] of a packed row's positions; under `losses_as_logits` their losses."""
        output = self._model(
            input_ids=batch.input_ids.to(self.device),
            position_ids=batch.position_ids.to(self.device),
            use_cache=False,
            logits_to_keep=positions.to(self.device),
            **row_bounds(self._base, batch.position_ids, self.device),
        )
        return output.logits[0]

    def _all_positions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of every position, flattened: padded rows, and architectures that cannot select positions."""
        if batch.attention_mask is None:
            extra = {"position_ids": batch.position_ids.to(self.device)}
            extra |= row_bounds(self._base, batch.position_ids, self.device)
        else:
            extra = {"attention_mask": batch.attention_mask.to(self.device)}
        output = self._model(input_ids=batch.input_ids.to(self.device), use_cache=False, **extra)
        return output.logits.flatten(0, 1), batch.targets.flatten().to(self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._compute_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._compute_dtype)
