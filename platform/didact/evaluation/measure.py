"""One task on one model: questions or held-out samples in, metrics and examples out."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation.generate import PAD_ID, generate_answers
from didact.evaluation.items import Example, Item, gsm8k_items, reasoning_gym_items, score_answers
from didact.evaluation.losses import Loss, Samples, held_out_loss
from didact.spec import Gsm8kTask, HeldOutTask, ReasoningGymTask, TaskSpec
from didact.tokens.template import TemplateContract


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task measured on one model."""

    task: str
    """`held_out`, `gsm8k`, or the name of the reasoning-gym generator."""
    metrics: dict[str, float]
    """Metric name, as in `eval/<task>/<metric>`, to value."""
    counts: dict[str, int]
    """Metric name to the number of items (or held-out samples) behind it."""
    num_items: int
    """Items of the whole task."""
    examples: tuple[Example, ...]
    """Every question with the model's answer; empty for losses."""
    seconds: float
    """Wall time."""


def run_task(
    task: TaskSpec,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    contract: TemplateContract,
    *,
    held_out: Mapping[str, Samples],
    batch_size: int,
    packing: bool,
) -> TaskResult:
    """Measure one task.

    Args:
        task: what to measure.
        model: a causal language model, plain or with a PEFT adapter.
        tokenizer: the model's.
        contract: renders the questions as in training.
        held_out: source name -> its held-out samples; used by the held-out task alone.
        batch_size: prompts generated, or samples scored, together.
        packing: score held-out samples packed in one row.

    Raises:
        DataError: no held-out samples, a question file that cannot be read, or a generator that does not exist.
    """
    started = time.perf_counter()
    examples: tuple[Example, ...] = ()
    if isinstance(task, HeldOutTask):
        name, metrics, counts = "held_out", *_losses(model, held_out, batch_size, packing)
        num_items = counts["eval/loss"]
    else:
        name, items = _questions(task)
        prompts = [(Message("user", item.question),) for item in items]
        texts = generate_answers(
            model, tokenizer, contract, prompts, max_new_tokens=task.max_new_tokens, batch_size=batch_size
        )
        examples = score_answers(items, texts)
        metric, num_items = f"eval/{name}/accuracy", len(items)
        metrics = {metric: sum(example.correct for example in examples) / num_items}
        counts = {metric: num_items}
    return TaskResult(name, metrics, counts, num_items, examples, time.perf_counter() - started)


def _questions(task: ReasoningGymTask | Gsm8kTask) -> tuple[str, tuple[Item, ...]]:
    if isinstance(task, Gsm8kTask):
        return "gsm8k", gsm8k_items(task)
    return task.name, reasoning_gym_items(task)


def _losses(
    model: Any, held_out: Mapping[str, Samples], batch_size: int, packing: bool
) -> tuple[dict[str, float], dict[str, int]]:
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
    return metrics, counts
