"""A linear layer with LoRA of several adapters, each on its own slice of the tokens, as one operation.

The layer computes all tokens at once. The adapters' products are added where its result and its gradient lie, so that
no other tensor is as wide as the layer; a weight in 4 bits is unpacked once a pass for all.

The adapters' matrices stand side by side, and one product computes all of them for all tokens; what is another's
becomes 0 between the two products. That is more arithmetic and far fewer operations than a product for each slice, its
plain twin. The twin keeps numbers that are not finite to the adapter that they come from, as 0 times infinity does not.
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
    dropout: float = 0.0

    @property
    def factor(self) -> float:
        """Of the two products, with what dropout adds to what it keeps."""
        return self.scaling / (1 - self.dropout)


@dataclass(frozen=True, slots=True)
class LoraSlices:
    """The adapters beside one layer. Their slices do not overlap; tokens in none get the layer's result alone."""

    parts: Sequence[LoraSlice]
    kept: torch.Tensor | None = None
    """[tokens, inputs], 0 for what dropout takes from what enters the adapters, else 1; None without dropout."""
    factors: torch.Tensor | None = None
    """[tokens, sum of ranks], each token's factor for the ranks of its own adapter, else 0; None computes slice by
    slice."""

    @property
    def weights(self) -> list[torch.Tensor]:
        """A and B of each."""
        return [weight for each in self.parts for weight in (each.first, each.second)]


def factors_of(parts: Sequence[LoraSlice], tokens: int, like: torch.Tensor) -> torch.Tensor:
    """`LoraSlices.factors` of a row of so many tokens, of the type and device of `like`."""
    found, rank = like.new_zeros(tokens, sum(len(each.first) for each in parts)), 0
    for each in parts:
        found[each.start : each.end, rank : rank + len(each.first)] = each.factor
        rank += len(each.first)
    return found


def computed_dtype(states: torch.Tensor) -> torch.dtype:
    """In which a linear layer computes what enters it."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def linear_with_slices(layer: torch.nn.Module, states: torch.Tensor, slices: LoraSlices) -> torch.Tensor | None:
    """The layer's result with B A x of each slice's tokens added.

    Args:
        layer: frozen.
        states: what enters it, [..., inputs].
        slices: of its tokens.

    Returns:
        [..., outputs]; None where the layer computes in a way of its own, so that `add_slices` must follow it.
    """
    dtype = computed_dtype(states)
    if not (type(layer) is torch.nn.Linear and layer.weight.dtype == dtype):
        state = getattr(layer.weight, "quant_state", None) if type(layer) is Linear4bit else None
        if state is None or state.dtype != dtype:
            return None
    with torch.autocast(states.device.type, enabled=False):
        result: torch.Tensor = _Linear.apply(states.to(dtype), layer, slices, *slices.weights)
    return result


def add_slices(states: torch.Tensor, output: torch.Tensor, slices: LoraSlices) -> torch.Tensor:
    """`output`, a layer's own result for `states` and contiguous, with B A x of each slice's tokens added in place."""
    with torch.autocast(states.device.type, enabled=False):
        added: torch.Tensor = _Added.apply(states.to(output.dtype), output, slices, *slices.weights)
    return added


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, layer: Any, slices: LoraSlices, *weights: torch.Tensor) -> torch.Tensor:
        output = functional.linear(states, _plain(layer), layer.bias)
        ctx.layer, ctx.slices = layer, slices
        ctx.save_for_backward(states, *_add(states, output, slices))
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, *saved = ctx.saved_tensors
        to_states = torch.matmul(grad, _plain(ctx.layer)) if ctx.needs_input_grad[0] else None
        return to_states, None, None, *_gradients(ctx.slices, states, grad, saved, to_states)


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, output: torch.Tensor, slices: LoraSlices, *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.mark_dirty(output)
        ctx.slices = slices
        ctx.save_for_backward(states, *_add(states, output, slices))
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


def _add(states: torch.Tensor, output: torch.Tensor, slices: LoraSlices) -> list[torch.Tensor]:
    """Add to `output` in place. Returns what `_gradients` needs: states in inner space, then weights in its dtype."""
    entered, result = states.reshape(-1, states.shape[-1]), output.view(-1, output.shape[-1])
    entered = entered if slices.kept is None else entered * slices.kept
    if slices.factors is not None:
        first = torch.cat([each.first for each in slices.parts]).to(output.dtype)
        second = torch.cat([each.second for each in slices.parts], dim=1).to(output.dtype)
        inner = torch.mm(entered, first.t()).mul_(slices.factors)
        result.addmm_(inner, second.t())
        return [inner, first, second]
    inners, weights = [], [each.to(output.dtype) for each in slices.weights]
    for each, first, second in zip(slices.parts, weights[::2], weights[1::2], strict=True):
        inner = torch.mm(entered[each.start : each.end], first.t()).mul_(each.factor)
        result[each.start : each.end].addmm_(inner, second.t())
        inners.append(inner)
    return [*inners, *weights]


def _gradients(
    slices: LoraSlices,
    states: torch.Tensor,
    grad: torch.Tensor,
    saved: Sequence[torch.Tensor],
    to_states: torch.Tensor | None,
) -> list[torch.Tensor]:
    """Gradients of the slices' weights; that of the states is added to `to_states` in place."""
    outer, entered = grad.reshape(-1, grad.shape[-1]), states.reshape(-1, states.shape[-1])
    entered = entered if slices.kept is None else entered * slices.kept
    to_weights: list[torch.Tensor] = []
    if slices.factors is not None:
        inner, first, second = saved
        to_inner = torch.mm(outer, second).mul_(slices.factors)
        to_first = torch.mm(to_inner.t(), entered).to(slices.parts[0].first.dtype)
        to_second = torch.mm(outer.t(), inner).to(slices.parts[0].second.dtype)
        ranks = [len(each.first) for each in slices.parts]
        for pair in zip(to_first.split(ranks), to_second.split(ranks, dim=1), strict=True):
            to_weights += pair
        _add_to_states(to_states, slices.kept, to_inner, first)
        return to_weights
    inners, weights = saved[: len(slices.parts)], saved[len(slices.parts) :]
    for each, inner, first, second in zip(slices.parts, inners, weights[::2], weights[1::2], strict=True):
        own = slice(each.start, each.end)
        to_inner = torch.mm(outer[own], second).mul_(each.factor)
        to_weights.append(torch.mm(to_inner.t(), entered[own]).to(each.first.dtype))
        to_weights.append(torch.mm(outer[own].t(), inner).to(each.second.dtype))
        kept = None if slices.kept is None else slices.kept[own]
        _add_to_states(None if to_states is None else to_states.view_as(entered)[own], kept, to_inner, first)
    return to_weights


def _add_to_states(
    to_states: torch.Tensor | None, kept: torch.Tensor | None, to_inner: torch.Tensor, first: torch.Tensor
) -> None:
    if to_states is None:
        return
    rows = to_states.view(-1, to_states.shape[-1])
    if kept is None:
        rows.addmm_(to_inner, first)
    else:
        rows.addcmul_(torch.mm(to_inner, first), kept)
