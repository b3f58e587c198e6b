"""The loss: summed cross-entropy over supervised positions, projecting only those onto the vocabulary."""

import contextlib
import inspect
from collections.abc import Sequence

import torch
from torch.nn import functional

from didact.models import base_of, row_bounds
from didact.tokens import Batch, join_rows
from didact.training.head_loss import frozen_head, losses_as_logits


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
        if batch.attention_mask is None and self._selects_positions:
            return self.summed_losses([batch])[0]
        with self._autocast():
            logits, targets = self._all_positions(batch)
        return functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")

    def summed_losses(self, batches: Sequence[Batch]) -> torch.Tensor:
        """The summed loss of each of several packed batches, computed in one row: float32 [batches] with gradient."""
        row = join_rows(batches)
        positions = torch.nonzero(row.targets[0] != -100).squeeze(1)
        targets = row.targets[0, positions].to(self.device).split([batch.num_supervised for batch in batches])
        with self._autocast():
            if self._head is not None:
                with losses_as_logits(self._head, targets):
                    return self._packed(row, positions)
            if self._selects_positions:
                logits = self._packed(row, positions)
            else:
                logits = self._all_positions(row)[0][positions.to(self.device)]
        parts = logits.float().split([len(wanted) for wanted in targets])
        return torch.stack(
            [functional.cross_entropy(*part, reduction="sum") for part in zip(parts, targets, strict=True)]
        )

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
