"""The loss on samples that were set aside, weighted as in training: the mean over supervised tokens."""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from didact.errors import DataError, ModelError
from didact.models import base_of, positions_at_once, row_bounds
from didact.tokens.batches import NO_TARGET, pack, pad, supervised_positions
from didact.tokens.types import Batch, Sample

PAD_ID = 0
"""Fills short rows. Padding is masked and never read back, so any id of the vocabulary does; not every tokenizer has a
padding token, and one that was added to a tokenizer may lie outside the model's vocabulary."""


class Samples(Protocol):
    """A sequence of samples, or a `TokenTable`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True)
class Loss:
    """A mean loss and what it is the mean of."""

    mean: float
    """Cross-entropy per supervised token, in nats."""
    num_supervised: int
    """Supervised tokens."""


def held_out_loss(
    model: Any,
    samples: Samples,
    *,
    pad_id: int,
    packing: bool,
    batch_size: int = 8,
    num_passes: int | None = None,
    device: torch.device | None = None,
) -> Loss:
    """The mean cross-entropy over all supervised tokens of `samples`, the same whatever the batch size or packing.

    Args:
        model: a causal language model, plain or with a PEFT adapter.
        samples: read as they are asked for.
        pad_id: fills the short rows of a padded batch; never a target.
        packing: put the samples of a batch in one row, each with its own positions and attention.
        batch_size: samples in one forward pass.
        num_passes: forward passes to make, not fewer than the batches; those left over compute a batch again and count
            nothing. Workers that share a model's weights must all make equally many. None skips what has no target.
        device: where batches go; None for where the model's first weight lies.

    Raises:
        DataError: no sample has a supervised token.
        ModelError: `packing` with a model or adapter that cannot keep packed samples apart.
    """
    accepted = frozenset(inspect.signature(base_of(model).forward).parameters)
    if packing:
        _check_packing(model, accepted)
    lengths = [len(samples[index].ids) for index in range(len(samples))]
    order = sorted(range(len(samples)), key=lambda index: -lengths[index])
    starts = range(0, len(order), batch_size)
    total, num_supervised = torch.zeros((), dtype=torch.float64), 0
    with evaluation_mode(model), torch.inference_mode():
        for turn in range(num_passes or len(starts)):
            start = starts[min(turn, len(starts) - 1)]
            chosen = [samples[index] for index in order[start : start + batch_size]]
            batch = pack(chosen) if packing else pad(chosen, pad_id)
            if batch.num_supervised or num_passes:
                loss = _summed_loss(model, batch, accepted, device or model.device)
                if turn < len(starts):
                    total += loss
                    num_supervised += batch.num_supervised
    if not num_supervised:
        raise DataError(f"none of {len(samples)} held-out samples has a supervised token; expected at least one")
    return Loss(mean=total.item() / num_supervised, num_supervised=num_supervised)


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards the mode that was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def num_prefix_positions(model: Any) -> int:
    """Trained positions that the active adapter puts before every row (prefix tuning); 0 for everything else."""
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def _check_packing(model: Any, accepted: frozenset[str]) -> None:
    if num_prefix_positions(model):
        raise ModelError(
            "the adapter puts trained positions before each row, so samples packed in one row would share them; "
            "set tokens.packing to auto or false"
        )
    if "position_ids" not in accepted:
        raise ModelError(
            f"{type(base_of(model)).__name__} takes no position_ids, so samples packed in one row would attend to "
            "each other; set tokens.packing to false"
        )


def _summed_loss(model: Any, batch: Batch, accepted: frozenset[str], device: torch.device) -> torch.Tensor:
    """Float64 scalar on the CPU: the sum of cross-entropies over the batch's targets."""
    targets = batch.targets
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": batch.attention_mask}
    if "logits_to_keep" in accepted:
        kept = supervised_positions(batch)
        inputs["logits_to_keep"], targets = kept, targets[:, kept]
    moved: dict[str, Any] = {}
    moved |= {name: value.to(device) for name, value in inputs.items() if value is not None and name in accepted}
    if batch.attention_mask is None:
        moved |= row_bounds(model, batch.position_ids, torch.device(device))
    # A cache would make the model take packed positions for a continuation.
    logits = model(**moved, use_cache=False).logits
    rows, wanted = logits.flatten(0, 1), targets.flatten().to(logits.device)
    at_once = positions_at_once(rows.shape[1], on_cpu=rows.device.type == "cpu")
    total = torch.zeros((), dtype=torch.float64)
    # In float32 they take several times the memory of the logits themselves, so a part of them at a time.
    for places in (wanted != NO_TARGET).nonzero()[:, 0].split(at_once):
        total += functional.cross_entropy(rows[places].float(), wanted[places], reduction="none").cpu().double().sum()
    return total
