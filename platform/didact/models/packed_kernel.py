"""Causal attention inside each sample of a packed row: one operator with its own backward pass.

PyTorch's SDPA on a processor has a high price per call in its backward pass, and autograd through plain products
keeps or copies every intermediate. Here the backward pass recomputes the weights block by block (Dao et al. 2022,
"FlashAttention", algorithm 4), so nothing of size length x length is kept, and writes each gradient once.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from didact.errors import ModelError

# Lengths are rounded up to this: few shapes, so that oneDNN generates few kernels, and rows that fill vector registers.
_ROUND = 32
# Queries taken at once: bounds memory at this times the sample's length for each head.
_BLOCK = 256


@cache
def packed_kernel() -> Any:
    """The operator `(query, key, value, positions, scaling) -> attended`, which `torch.compile` leaves as it is.

    Takes query [1, heads, length, head_dim], key and value [1, key heads, length, head_dim] of one dtype, int64
    positions [1, length] that restart at 0 with each sample, and the factor of the scores; returns
    [1, length, heads, head_dim].
    Raises ModelError when the row does not begin with position 0.
    """
    kernel = torch.library.custom_op("didact::packed_attention", _forward, mutates_args=())
    kernel.register_fake(lambda query, key, value, positions, scaling: _like(query))
    gradient = torch.library.custom_op("didact::packed_attention_backward", _backward, mutates_args=())
    gradient.register_fake(lambda grad, query, key, value, positions, scaling: (_like(query), _like(key), _like(value)))

    def setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        *tensors, ctx.scaling = inputs
        ctx.save_for_backward(*tensors)

    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grads = gradient(grad, *ctx.saved_tensors, ctx.scaling)
        return *(each.transpose(1, 2) for each in grads), None, None

    kernel.register_autograd(backward, setup_context=setup)
    return kernel


def sample_spans(positions: torch.Tensor) -> list[tuple[int, int]]:
    """(start, end) of each sample in a packed row, from its positions [1, length].

    Raises:
        ModelError: the row does not begin with position 0.
    """
    starts = torch.nonzero(positions[0] == 0).flatten().tolist()
    if not starts or starts[0] != 0:
        raise ModelError(f"a packed row must begin with position 0; found {positions[0, :4].tolist()}")
    return list(zip(starts, [*starts[1:], positions.shape[1]], strict=True))


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, positions: torch.Tensor, scaling: float
) -> torch.Tensor:
    attended = _like(query)
    for start, first, last in _blocks(positions):
        inner, keys, values = _block(query, first, last), *_keys(query, key, value, start, last)
        weights = _weights(inner, keys, first - start, scaling)
        attended[0, first:last] = torch.bmm(weights, values)[:, : last - first].transpose(0, 1)
    return attended


def _backward(
    grad: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients as [1, length, heads, head_dim]."""
    to_query, to_key, to_value = _like(query), torch.zeros_like(_like(key)), torch.zeros_like(_like(value))
    outer_states = grad.transpose(1, 2)
    for start, first, last in _blocks(positions):
        inner, keys, values = _block(query, first, last), *_keys(query, key, value, start, last)
        outer = _block(outer_states, first, last)
        weights = _weights(inner, keys, first - start, scaling)
        to_weights = torch.bmm(outer, values.transpose(1, 2))
        to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_query[0, first:last] = torch.bmm(to_scores, keys * scaling)[:, : last - first].transpose(0, 1)
        _add_to_keys(to_key[0, start:last], torch.bmm(to_scores.transpose(1, 2), inner * scaling))
        _add_to_keys(to_value[0, start:last], torch.bmm(weights.transpose(1, 2), outer))
    return to_query, to_key, to_value


def _blocks(positions: torch.Tensor) -> Iterator[tuple[int, int, int]]:
    """(start of the sample, first query, end of the queries) of each block of queries."""
    for start, end in sample_spans(positions):
        for first in range(start, end, _BLOCK):
            yield start, first, min(first + _BLOCK, end)


def _block(states: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """[1, heads, length, head_dim] -> contiguous [heads, rounded, head_dim], zeros behind the block's own tokens.

    A causal query sees no filler, and what filler computes is dropped or has no gradient.
    """
    return functional.pad(states[0, :, first:last], (0, 0, 0, -(last - first) % _ROUND))


def _keys(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, start: int, last: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values that a block of queries may see, one of each for every query head."""
    groups = query.shape[1] // key.shape[1]
    seen = (_block(key, start, last), _block(value, start, last))
    return tuple(each.repeat_interleave(groups, 0) if groups > 1 else each for each in seen)


def _weights(inner: torch.Tensor, keys: torch.Tensor, offset: int, scaling: float) -> torch.Tensor:
    """Attention weights [heads, queries, keys] of queries that come `offset` tokens into their sample."""
    ahead = torch.full((inner.shape[1], keys.shape[1]), float("-inf"), dtype=inner.dtype, device=inner.device)
    scores = torch.baddbmm(ahead.triu_(offset + 1), inner, keys.transpose(1, 2), alpha=scaling)
    return torch.softmax(scores, dim=-1)


def _add_to_keys(total: torch.Tensor, part: torch.Tensor) -> None:
    """Add [heads, rounded, head_dim] to the gradient of the keys [tokens, key heads, head_dim] the heads share."""
    groups = part.shape[0] // total.shape[1]
    part = part.unflatten(0, (-1, groups)).sum(1) if groups > 1 else part
    total += part[:, : total.shape[0]].transpose(0, 1)


def _like(states: torch.Tensor) -> torch.Tensor:
    return states.new_empty(states.shape[0], states.shape[2], states.shape[1], states.shape[3])
