"""Causal attention inside each sample of a packed row: one operator with its own backward pass.

PyTorch's SDPA on a processor has a high price per call in its backward pass, and autograd through plain products
keeps or copies every intermediate. Here the backward pass recomputes the weights block by block (Dao et al. 2022,
"FlashAttention", algorithm 4), so nothing of size length x length is kept. Samples of like length share each
operation, and heads that share a key share its products.
"""

from typing import Any

import torch

from didact.models.packing.packed_plan import Group, Plan, plan_attention, sample_spans


@torch.library.custom_op("didact::packed_attention", mutates_args=())
def packed_kernel(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, positions: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Causal attention inside each sample; `torch.compile` leaves the operator as it is.

    Args:
        query: [1, heads, length, head_dim].
        key: [1, key heads, length, head_dim], of the same dtype.
        value: as `key`, of any head size.
        positions: int64 [1, length], restarting with each sample (`sample_spans`).
        scaling: factor of the scores.

    Returns:
        [1, length, heads, value's head_dim].

    Raises:
        ModelError: these are no positions of a packed row.
    """
    plan, rows = _plan(query, key, positions), tuple(_rows(each) for each in (query, key, value))
    parts = []
    for group in plan.groups:
        queries, keys, values = _blocks(group, *rows)
        parts.append(torch.bmm(_weights(group, queries, keys, scaling), values).flatten(0, 1))
    return _ordered(plan, parts, query.shape[1])


@torch.library.custom_op("didact::packed_attention_backward", mutates_args=())
def _gradients(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients as [1, length, heads, head_dim], of each input's own heads."""
    plan, rows = _plan(query, key, positions), tuple(_rows(each) for each in (query, key, value))
    to_query, to_key, to_value = [], torch.zeros_like(_like(key)), torch.zeros_like(_like(value))
    grad_rows = grad.reshape(-1, grad.shape[-1])
    for group in plan.groups:
        queries, keys, values = _blocks(group, *rows)
        outer = grad_rows.index_select(0, group.query_rows).index_fill_(0, group.filler, 0)
        outer = outer.view(*queries.shape[:2], -1)
        weights = _weights(group, queries, keys, scaling)
        to_weights = torch.bmm(outer, values.transpose(1, 2))
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_query.append(_scaled(to_scores, keys, scaling).flatten(0, 1))
        _add_to_keys(group, to_key, _scaled(to_scores.transpose(1, 2), queries, scaling))
        _add_to_keys(group, to_value, torch.bmm(weights.transpose(1, 2), outer))
    return _ordered(plan, to_query, query.shape[1]), to_key, to_value


@packed_kernel.register_fake
def _shape(query: torch.Tensor, _key: Any, value: torch.Tensor, _positions: Any, _scaling: Any) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


@_gradients.register_fake
def _gradient_shapes(
    _grad: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _positions: Any, _scaling: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _like(query), _like(key), _like(value)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    *tensors, ctx.scaling = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return *(each.transpose(1, 2) for each in _gradients(grad, *ctx.saved_tensors, ctx.scaling)), None, None


packed_kernel.register_autograd(_backward, setup_context=_setup)


def _plan(query: torch.Tensor, key: torch.Tensor, positions: torch.Tensor) -> Plan:
    return plan_attention(sample_spans(positions), query.shape[1], key.shape[1])


def _rows(states: torch.Tensor) -> torch.Tensor:
    """[1, heads, length, head_dim] -> [length * heads, head_dim], which is how projections wrote it."""
    return states.transpose(1, 2).reshape(-1, states.shape[-1])


def _blocks(
    group: Group, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A group's queries [key heads * blocks, heads a key head * queries, head_dim], and its keys and values."""
    keys, values = (each.index_select(0, group.key_rows).view(-1, group.keys, each.shape[-1]) for each in (key, value))
    return query.index_select(0, group.query_rows).view(len(keys), -1, query.shape[-1]), keys, values


def _weights(group: Group, queries: torch.Tensor, keys: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention weights of a group's queries."""
    ahead = queries.new_full((group.queries, group.keys), float("-inf")).triu_(group.offset + 1)
    ahead = ahead.repeat(queries.shape[1] // group.queries, 1)
    return torch.softmax(torch.baddbmm(ahead, queries, keys.transpose(1, 2), alpha=scaling), dim=-1)


def _scaled(left: torch.Tensor, right: torch.Tensor, scaling: float) -> torch.Tensor:
    """Products of two batches of matrices, scaled before they are rounded."""
    ignored = left.new_empty(()).expand(left.shape[0], left.shape[1], right.shape[2])
    return torch.baddbmm(ignored, left, right, beta=0, alpha=scaling)


def _add_to_keys(group: Group, total: torch.Tensor, part: torch.Tensor) -> None:
    """Add a group's part [key heads * blocks, keys, head_dim] to the keys' gradient [1, length, heads, head_dim]."""
    rows, own = group.key_rows[group.own], part.flatten(0, 1).index_select(0, group.own)
    if group.repeats:
        total.view(-1, total.shape[-1]).index_add_(0, rows, own)
    else:
        total.view(-1, total.shape[-1])[rows] += own  # twice as fast, but a row that is there twice would count once


def _ordered(plan: Plan, parts: list[torch.Tensor], num_heads: int) -> torch.Tensor:
    """The groups' rows in the sequence's order, [1, length, heads, head_dim]."""
    rows = torch.cat(parts).index_select(0, plan.order)
    return rows.view(1, -1, num_heads, rows.shape[-1])


def _like(states: torch.Tensor) -> torch.Tensor:
    return states.new_empty(states.shape[0], states.shape[2], states.shape[1], states.shape[3])
