"""The task that asks nothing: losses on the rows that a recipe's sources set aside."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

import torch

from didact.errors import DataError
from didact.evaluation.losses import PAD_ID, Samples, sample_losses
from didact.evaluation.results import TaskResult

HELD_OUT = "held_out"
_LIMITS = (128, 512, 2048)
"""Samples below and above so many tokens have figures of their own."""


def held_out_result(
    model: Any,
    held_out: Mapping[str, Samples],
    *,
    batch_size: int,
    packing: bool,
    share_prefixes: bool = False,
) -> TaskResult:
    """The loss of each source, over all of them, and of short and long samples where both are there.

    Args:
        model: a causal language model, plain or with a PEFT adapter.
        held_out: source name -> its held-out samples.
        batch_size: samples scored together.
        packing: score samples packed in one row.
        share_prefixes: first tokens that samples of a packed row have in common are computed once.

    Raises:
        DataError: no held-out samples, or some without anything learned.
    """
    started = time.perf_counter()
    present = {source: samples for source, samples in held_out.items() if len(samples)}
    if not present:
        raise DataError(
            f"evaluation task held_out: none of the sources {list(held_out)} has held-out rows; "
            "set data.sources[].held_out_rows, or remove the task from evaluation.tasks"
        )
    losses = {}
    for source, samples in present.items():
        losses[source] = sample_losses(
            model, samples, pad_id=PAD_ID, packing=packing, batch_size=batch_size, share_prefixes=share_prefixes
        )
        if not losses[source][1].sum():
            raise DataError(f"source {source}: none of {len(samples)} held-out samples has a supervised token")
    summed, learned = (torch.cat(each) for each in zip(*losses.values(), strict=True))
    lengths = torch.tensor([len(samples[n].ids) for samples in present.values() for n in range(len(samples))])
    parts = {f"eval/{source}/loss": (losses[source][0], losses[source][1]) for source in present}
    parts["eval/loss"] = (summed, learned)
    for name, inside in _by_length(lengths).items():
        parts[f"eval/held_out/{name}/loss"] = (summed[inside], learned[inside])
    metrics = {name: (part.sum() / count.sum()).item() for name, (part, count) in parts.items() if count.sum()}
    counts = {name: len(parts[name][0]) for name in metrics}
    return TaskResult(HELD_OUT, metrics, counts, counts["eval/loss"], time.perf_counter() - started)


def _by_length(lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    """Which samples lie between two limits in tokens; nothing where all lie between the same two."""
    limits = [0, *_LIMITS, None]
    found = {}
    for low, high in itertools.pairwise(limits):
        inside = (lengths >= low) & (lengths < high) if high is not None else lengths >= low
        if inside.any():
            found[f"{low}-{high - 1}_tokens" if high is not None else f"{low}_tokens_and_more"] = inside
    return found if len(found) > 1 else {}
