"""LoRA of several adapters beside one linear layer, each on its own slice of the tokens, as one operation.

The layer itself has computed all tokens at once. Products are added where its result lies, and the backward pass keeps
no tensor as wide as the layer but the one that autograd holds anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


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
    """bool [tokens, inputs], what dropout keeps of what enters the adapter; None without dropout."""
    dropout: float = 0.0


def add_slices(states: torch.Tensor, output: torch.Tensor, slices: Sequence[LoraSlice]) -> torch.Tensor:
    """`output` with B A x of each slice's tokens added in place.

    Args:
        states: what entered the layer, [..., inputs], of as many tokens as `output`.
        output: the layer's own result, [..., outputs], contiguous; nothing else may need its values.
        slices: do not overlap; tokens in none of them stay as they are.
    """
    weights = [weight for each in slices for weight in (each.first, each.second)]
    added: torch.Tensor = _AddSlices.apply(states, output, slices, *weights)
    return added


class _AddSlices(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, output: torch.Tensor, slices: Sequence[LoraSlice], *weights: torch.Tensor
    ) -> torch.Tensor:
        entered, result = states.reshape(-1, states.shape[-1]), output.view(-1, output.shape[-1])
        inners = []
        for each in slices:
            inner = torch.mm(_entered(entered, each, output.dtype), each.first.to(output.dtype).t())
            result[each.start : each.end].addmm_(inner, each.second.to(output.dtype).t(), alpha=each.scaling)
            inners.append(inner)
        ctx.mark_dirty(output)
        ctx.slices = slices
        ctx.save_for_backward(states, *inners)
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, *inners = ctx.saved_tensors
        entered, grads = states.reshape(-1, states.shape[-1]), grad.reshape(-1, grad.shape[-1])
        to_states = torch.zeros_like(entered) if ctx.needs_input_grad[0] else None
        to_weights: list[torch.Tensor] = []
        for each, inner in zip(ctx.slices, inners, strict=True):
            outer = grads[each.start : each.end]
            to_inner = torch.mm(outer, each.second.to(outer.dtype)).mul_(each.scaling)
            to_weights += (
                torch.mm(to_inner.t(), _entered(entered, each, outer.dtype)).to(each.first.dtype),
                torch.mm(outer.t(), inner).to(each.second.dtype).mul_(each.scaling),
            )
            if to_states is not None:
                to_slice = torch.mm(to_inner, each.first.to(outer.dtype))
                to_states[each.start : each.end] = _dropped(to_slice, each)
        return None if to_states is None else to_states.view_as(states), grad, None, *to_weights


def _entered(entered: torch.Tensor, each: LoraSlice, dtype: torch.dtype) -> torch.Tensor:
    return _dropped(entered[each.start : each.end].to(dtype), each)


def _dropped(states: torch.Tensor, each: LoraSlice) -> torch.Tensor:
    """The states of a slice as dropout lets them through."""
    return states if each.kept is None else states * each.kept.to(states.dtype).div_(1 - each.dropout)
