"""How likely a model holds given texts to be, token by token."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from didact.evaluation.asks import Likely
from didact.evaluation.losses import PAD_ID
from didact.models import base_of, evaluation_mode, positions_at_once

BATCH_TOKENS = 4096
"""Tokens in one forward pass, padding counted."""

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Where one continuation's tokens are predicted."""

    row: tuple[int, ...]
    """What the model reads: context and continuation, without its last token."""
    start: int
    """Position that predicts the first token."""
    targets: tuple[int, ...]


def log_likelihoods(model: Any, pairs: Sequence[tuple[Ids, Ids]], *, batch_tokens: int = BATCH_TOKENS) -> list[Likely]:
    """The log-likelihood of each continuation after its context, in order.

    Continuations that differ in their last token only, as the letters of a multiple choice do, share one row of the
    forward pass.

    Args:
        model: a causal language model, plain or with a PEFT adapter.
        pairs: token ids of context and continuation, at least one each.
        batch_tokens: tokens in one forward pass, padding counted; a longer row stands alone.

    Raises:
        ValueError: an empty context or continuation.
    """
    wanted = [_wanted(context, continuation) for context, continuation in pairs]
    found: dict[tuple[tuple[int, ...], int, tuple[int, ...]], Likely] = {}
    by_row: dict[tuple[int, ...], list[_Wanted]] = {}
    for each in wanted:
        by_row.setdefault(each.row, []).append(each)
    with evaluation_mode(model), torch.inference_mode():
        for rows in _batches(sorted(by_row, key=len, reverse=True), batch_tokens):
            asked = [(index, each) for index, row in enumerate(rows) for each in by_row[row]]
            for (_, each), likely in zip(asked, _measured(model, rows, asked), strict=True):
                found[each.row, each.start, each.targets] = likely
    return [found[each.row, each.start, each.targets] for each in wanted]


def _wanted(context: Ids, continuation: Ids) -> _Wanted:
    if not len(context) or not len(continuation):
        raise ValueError(f"found {len(context)} tokens of context and {len(continuation)} after it; expected some each")
    return _Wanted((*context, *continuation[:-1]), len(context) - 1, tuple(continuation))


def _batches(rows: Sequence[tuple[int, ...]], batch_tokens: int) -> Iterator[list[tuple[int, ...]]]:
    """Rows of falling length, so that each batch's first one is its width."""
    batch: list[tuple[int, ...]] = []
    for row in rows:
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _measured(model: Any, rows: list[tuple[int, ...]], asked: list[tuple[int, _Wanted]]) -> list[Likely]:
    width = len(rows[0])
    ids = torch.tensor([[*row, *[PAD_ID] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    positions = torch.arange(width)
    # Columns in which any continuation is predicted: the vocabulary projection of all others is spared.
    kept = sorted({each.start + step for _, each in asked for step in range(len(each.targets))})
    column = {position: index for index, position in enumerate(kept)}
    inputs = {
        "input_ids": ids,
        "attention_mask": (positions < lengths[:, None]).long(),
        "position_ids": positions.expand(ids.shape),
        "logits_to_keep": torch.tensor(kept),
    }
    accepted = inspect.signature(base_of(model).forward).parameters
    moved = {name: value.to(model.device) for name, value in inputs.items() if name in accepted}
    logits = model(**moved, use_cache=False).logits
    if "logits_to_keep" not in accepted:
        logits = logits[:, kept]
    places = [(row, column[each.start + step]) for row, each in asked for step in range(len(each.targets))]
    targets = torch.tensor([target for _, each in asked for target in each.targets], device=logits.device)
    chances, greedy = _of_targets(logits, places, targets)
    likely, first = [], 0
    for _, each in asked:
        part = slice(first, first + len(each.targets))
        first = part.stop
        likely.append(Likely(sum(chances[part]), len(each.targets), all(greedy[part])))
    return likely


def _of_targets(
    logits: torch.Tensor, places: list[tuple[int, int]], targets: torch.Tensor
) -> tuple[list[float], list[bool]]:
    """Log-probability of each target at its place in `logits`, and whether it is the likeliest token there."""
    rows, columns = (torch.tensor(each, device=logits.device) for each in zip(*places, strict=True))
    at_once = positions_at_once(logits.shape[-1], on_cpu=logits.device.type == "cpu")
    chances: list[float] = []
    greedy: list[bool] = []
    for part in torch.arange(len(places), device=logits.device).split(at_once):
        there = logits[rows[part], columns[part]].float()
        own = there.gather(-1, targets[part, None])[:, 0]
        chances += (own - there.logsumexp(-1)).double().tolist()
        greedy += (there.argmax(-1) == targets[part]).tolist()
    return chances, greedy
