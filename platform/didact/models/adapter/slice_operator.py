"""A linear layer with LoRA of several adapters, each on its own slice of the tokens, as one operation.

The layer computes all tokens at once. The adapters' products are added where its result and its gradient lie, so that
no other tensor is as wide as the layer; a weight in 4 bits is unpacked once a pass for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class LoraSlice:
    """What one adapter does beside a layer."""

    start: int
    """Its first token."""
    end: int
    """Behind its last one."""
    first: torch.Tensor
    """A, [rank, inputs]."""
    second: torch.Tensor
    """B, [outputs, rank]."""
    scaling: float
    kept: torch.Tensor | None = None
    """[tokens, inputs], 1 for what dropout keeps of what enters the adapter, else 0; None without dropout."""
    dropout: float = 0.0

    @property
    def factor(self) -> float:
        """Of the two products, with what dropout adds to what it keeps."""
        return self.scaling / (1 - self.dropout)


def linear_with_slices(
    layer: torch.nn.Module, states: torch.Tensor, slices: Sequence[LoraSlice]
) -> torch.Tensor | None:
    """The layer's result with B A x of each slice's tokens added.

    Args:
        layer: frozen.
        states: what enters it, [..., inputs].
        slices: do not overlap; tokens in none of them get the layer's result alone.

    Returns:
        [..., outputs]; None where the layer computes in a way of its own, so that `add_slices` must follow it.
    """
    kind = states.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
    if not (type(layer) is torch.nn.Linear and layer.weight.dtype == dtype):
        state = getattr(layer.weight, "quant_state", None) if type(layer) is Linear4bit else None
        if state is None or state.dtype != dtype:
            return None
    weights = [weight for each in slices for weight in (each.first, each.second)]
    with torch.autocast(kind, enabled=False):
        result: torch.Tensor = _Linear.apply(states.to(dtype), layer, slices, *weights)
    return result


def add_slices(states: torch.Tensor, output: torch.Tensor, slices: Sequence[LoraSlice]) -> torch.Tensor:
    """`output`, a layer's own result for `states` and contiguous, with B A x of each slice's tokens added in place."""
    weights = [weight for each in slices for weight in (each.first, each.second)]
    added: torch.Tensor = _Added.apply(states, output, slices, *weights)
    return added


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, layer: Any, slices: Sequence[LoraSlice], *weights: torch.Tensor
    ) -> torch.Tensor:
        output = functional.linear(states, _plain(layer), layer.bias)
        ctx.layer, ctx.slices = layer, slices
        ctx.save_for_backward(states, *_add(states, output, slices, weights))
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, *saved = ctx.saved_tensors
        to_states = torch.matmul(grad, _plain(ctx.layer)) if ctx.needs_input_grad[0] else None
        return to_states, None, None, *_gradients(ctx.slices, states, grad, saved, to_states)


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, output: torch.Tensor, slices: Sequence[LoraSlice], *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.mark_dirty(output)
        ctx.slices = slices
        ctx.save_for_backward(states, *_add(states, output, slices, weights))
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, *saved = ctx.saved_tensors
        to_states = torch.zeros_like(states) if ctx.needs_input_grad[0] else None
        return to_states, grad, None, *_gradients(ctx.slices, states, grad, saved, to_states)


def _plain(layer: Any) -> torch.Tensor:
    """The weight [outputs, inputs] as it is multiplied with."""
    if type(layer) is torch.nn.Linear:
        return layer.weight
    plain: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return plain


def _add(
    states: torch.Tensor, output: torch.Tensor, slices: Sequence[LoraSlice], weights: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Add to `output` in place. Returns what `_gradients` needs: states in inner space, then weights in its dtype."""
    entered, result = states.reshape(-1, states.shape[-1]), output.view(-1, output.shape[-1])
    inners, factors = [], [each.to(output.dtype) for each in weights]
    for each, first, second in zip(slices, factors[::2], factors[1::2], strict=True):
        inner = torch.mm(_kept(entered[each.start : each.end].to(output.dtype), each), first.t())
        result[each.start : each.end].addmm_(inner, second.t(), alpha=each.factor)
        inners.append(inner)
    return [*inners, *factors]


def _gradients(
    slices: Sequence[LoraSlice],
    states: torch.Tensor,
    grad: torch.Tensor,
    saved: Sequence[torch.Tensor],
    to_states: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients of the slices' weights; that of the states is added to `to_states` in place."""
    inners, factors = saved[: len(slices)], saved[len(slices) :]
    entered, grads = states.reshape(-1, states.shape[-1]), grad.reshape(-1, grad.shape[-1])
    to_entered = None if to_states is None else to_states.view(-1, states.shape[-1])
    to_weights: list[torch.Tensor] = []
    for each, inner, first, second in zip(slices, inners, factors[::2], factors[1::2], strict=True):
        outer = grads[each.start : each.end]
        to_inner = torch.mm(outer, second).mul_(each.factor)
        dropped = _kept(entered[each.start : each.end].to(outer.dtype), each)
        to_weights.append(torch.mm(to_inner.t(), dropped).to(each.first.dtype))
        to_weights.append(torch.mm(outer.t(), inner).to(each.second.dtype).mul_(each.factor))
        if to_entered is None:
            continue
        if each.kept is None and to_entered.dtype == to_inner.dtype:
            to_entered[each.start : each.end].addmm_(to_inner, first)
        else:
            to_entered[each.start : each.end] += _kept(torch.mm(to_inner, first), each)
    return to_weights


def _kept(states: torch.Tensor, each: LoraSlice) -> torch.Tensor:
    """The states of a slice that dropout lets through; the others are 0."""
    return states if each.kept is None else states * each.kept
