"""The loss on samples that were set aside, weighted as in training: the mean over supervised tokens."""

import inspect
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional

from didact.errors import DataError, ModelError
from didact.models import base_of, evaluation_mode, positions_at_once, row_bounds
from didact.models.methods import num_trained_positions
from didact.tokens.batches import NO_TARGET, pack, pad, shared_prefixes, supervised_positions
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
    share_prefixes: bool = False,
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
        share_prefixes: first tokens that samples of a packed row have in common are computed once (`tokens.pack`).

    Raises:
        DataError: no sample has a supervised token.
        ModelError: `packing` with a model or adapter that cannot keep packed samples apart.
    """
    summed, learned = sample_losses(
        model,
        samples,
        pad_id=pad_id,
        packing=packing,
        batch_size=batch_size,
        num_passes=num_passes,
        device=device,
        share_prefixes=share_prefixes,
    )
    num_supervised = int(learned.sum())
    if not num_supervised:
        raise DataError(f"none of {len(samples)} held-out samples has a supervised token; expected at least one")
    return Loss(mean=summed.sum().item() / num_supervised, num_supervised=num_supervised)


def sample_losses(
    model: Any,
    samples: Samples,
    *,
    pad_id: int,
    packing: bool,
    batch_size: int = 8,
    num_passes: int | None = None,
    device: torch.device | None = None,
    share_prefixes: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each sample; see `held_out_loss` for the arguments.

    Returns:
        float64 [samples], the sum over a sample's supervised tokens in nats; int64 [samples], how many those are.
    """
    accepted = frozenset(inspect.signature(base_of(model).forward).parameters)
    if packing:
        _check_packing(model, accepted)
    lengths = [len(samples[index].ids) for index in range(len(samples))]
    order = sorted(range(len(samples)), key=lambda index: -lengths[index])
    starts = range(0, len(order), batch_size)
    summed = torch.zeros(len(samples), dtype=torch.float64)
    learned = torch.zeros(len(samples), dtype=torch.int64)
    with evaluation_mode(model), torch.inference_mode():
        for turn in range(num_passes or len(starts)):
            start = starts[min(turn, len(starts) - 1)]
            indices = order[start : start + batch_size]
            chosen = [samples[index] for index in indices]
            batch = pack(chosen, share_prefixes=share_prefixes) if packing else pad(chosen, pad_id)
            if batch.num_supervised or num_passes:
                owners = _owners(batch, chosen, share_prefixes)
                losses, counts = _losses_of(model, batch, owners, len(chosen), accepted, device or model.device)
                if turn < len(starts):
                    summed[indices], learned[indices] = losses, counts
    return summed, learned


def _check_packing(model: Any, accepted: frozenset[str]) -> None:
    if num_trained_positions(model):
        raise ModelError(
            "the adapter puts trained positions before each row, so samples packed in one row would share them; "
            "set tokens.packing to auto or false"
        )
    if "position_ids" not in accepted:
        raise ModelError(
            f"{type(base_of(model)).__name__} takes no position_ids, so samples packed in one row would attend to "
            "each other; set tokens.packing to false"
        )


def _owners(batch: Batch, samples: list[Sample], share_prefixes: bool) -> torch.Tensor:
    """int64 [rows, length]: which sample each position belongs to."""
    if batch.attention_mask is not None:
        return torch.arange(len(samples))[:, None].expand(batch.input_ids.shape)
    shared = shared_prefixes(samples) if share_prefixes else [0] * len(samples)
    own = [len(each.ids) - first for each, first in zip(samples, shared, strict=True)]
    return torch.arange(len(samples)).repeat_interleave(torch.tensor(own))[None]


def _losses_of(
    model: Any,
    batch: Batch,
    owners: torch.Tensor,
    num_samples: int,
    accepted: frozenset[str],
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """On the CPU, for each sample of the batch: float64 sum of cross-entropies over its targets, int64 how many."""
    targets = batch.targets
    inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": batch.attention_mask}
    if "logits_to_keep" in accepted:
        kept = supervised_positions(batch)
        inputs["logits_to_keep"], targets, owners = kept, targets[:, kept], owners[:, kept]
    moved: dict[str, Any] = {}
    moved |= {name: value.to(device) for name, value in inputs.items() if value is not None and name in accepted}
    if batch.attention_mask is None:
        moved |= row_bounds(model, batch.position_ids, torch.device(device))
    # A cache would make the model take packed positions for a continuation.
    logits = model(**moved, use_cache=False).logits
    rows, wanted = logits.flatten(0, 1), targets.flatten()
    at_once = positions_at_once(rows.shape[1], on_cpu=rows.device.type == "cpu")
    summed = torch.zeros(num_samples, dtype=torch.float64)
    learned = (wanted != NO_TARGET).nonzero()[:, 0]
    owned = owners.flatten()[learned]
    # In float32 they take several times the memory of the logits themselves, so a part of them at a time.
    for places, whose in zip(learned.split(at_once), owned.split(at_once), strict=True):
        there, aims = rows[places.to(rows.device)].float(), wanted[places].to(rows.device)
        summed.index_add_(0, whose, functional.cross_entropy(there, aims, reduction="none").cpu().double())
    return summed, torch.bincount(owned, minlength=num_samples)
