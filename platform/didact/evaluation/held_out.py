"""The task that asks nothing: losses on the rows that a recipe's sources set aside."""

import time
from collections.abc import Mapping
from typing import Any

from didact.errors import DataError
from didact.evaluation.losses import PAD_ID, Loss, Samples, held_out_loss
from didact.evaluation.results import TaskResult

HELD_OUT = "held_out"


def held_out_result(model: Any, held_out: Mapping[str, Samples], *, batch_size: int, packing: bool) -> TaskResult:
    """The loss of each source and over all of them.

    Args:
        model: a causal language model, plain or with a PEFT adapter.
        held_out: source name -> its held-out samples.
        batch_size: samples scored together.
        packing: score samples packed in one row.

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
    losses: dict[str, Loss] = {}
    for source, samples in present.items():
        try:
            losses[source] = held_out_loss(model, samples, pad_id=PAD_ID, packing=packing, batch_size=batch_size)
        except DataError as error:
            raise DataError(f"source {source}: {error}") from error
    num_supervised = sum(loss.num_supervised for loss in losses.values())
    metrics = {f"eval/{source}/loss": loss.mean for source, loss in losses.items()}
    metrics["eval/loss"] = sum(loss.mean * loss.num_supervised for loss in losses.values()) / num_supervised
    counts = {f"eval/{source}/loss": len(samples) for source, samples in present.items()}
    counts["eval/loss"] = sum(counts.values())
    return TaskResult(HELD_OUT, metrics, counts, counts["eval/loss"], time.perf_counter() - started)
