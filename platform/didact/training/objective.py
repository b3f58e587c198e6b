"""The loss: summed cross-entropy over supervised positions, projecting only those onto the vocabulary."""

import contextlib
import inspect

import torch
from torch.nn import functional

from didact.tokens import Batch
from didact.training.head_loss import frozen_head, head_loss, hidden_states_as_logits


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
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._model = model
        self.device = device or next(model.parameters()).device
        self._selects_positions = "logits_to_keep" in inspect.signature(base.forward).parameters
        self._compute_dtype = compute_dtype
        self._head = frozen_head(base, compute_dtype) if self._selects_positions else None

    def summed_loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the cross-entropy over the batch's targets, float32 scalar with gradient."""
        with self._autocast():
            if batch.attention_mask is None and self._head is not None:
                with hidden_states_as_logits(self._head):
                    hidden, targets = self._packed(batch)
                return head_loss(hidden, self._head.weight, targets)
            if batch.attention_mask is None and self._selects_positions:
                logits, targets = self._packed(batch)
            else:
                logits, targets = self._all_positions(batch)
        return functional.cross_entropy(logits.float(), targets, ignore_index=-100, reduction="sum")

    def _packed(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [num_supervised, vocabulary] of a packed row's supervised positions, and their targets.

        Hidden states in place of logits where the output layer is left to `head_loss`.
        """
        targets = batch.targets[0]
        positions = torch.nonzero(targets != -100).squeeze(1)
        output = self._model(
            input_ids=batch.input_ids.to(self.device),
            position_ids=batch.position_ids.to(self.device),
            use_cache=False,
            logits_to_keep=positions.to(self.device),
        )
        return output.logits[0], targets[positions].to(self.device)

    def _all_positions(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of every position, flattened: padded rows, and architectures that cannot select positions."""
        if batch.attention_mask is None:
            extra = {"position_ids": batch.position_ids.to(self.device)}
        else:
            extra = {"attention_mask": batch.attention_mask.to(self.device)}
        output = self._model(input_ids=batch.input_ids.to(self.device), use_cache=False, **extra)
        return output.logits.flatten(0, 1), batch.targets.flatten().to(self.device)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self._compute_dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._compute_dtype)
