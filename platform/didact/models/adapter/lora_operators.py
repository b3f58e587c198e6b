"""A linear layer with LoRA as one operator: the adapter's products are added where the layer's own result lies.

PEFT's layer computes W x and B A x apart, scales and adds them, and autograd adds their gradients: each a pass over a
tensor as wide as the layer. Those passes take as long as a third of the products on a GPU. The same arithmetic, in the
same number formats, is done here in the products themselves.
"""

from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from torch.nn import functional


@torch.library.custom_op("didact::lora_linear", mutates_args=())
def lora_linear(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's result with the adapter's added.

    Args:
        states: [rows, inputs].
        weight: frozen [outputs, inputs], of the states' dtype.
        bias: [outputs] or None, frozen.
        first: the adapter's A [rank, inputs].
        second: the adapter's B [outputs, rank].
        scaling: factor of their product.

    Returns:
        [rows, outputs], and the states in the adapter's inner space [rows, rank], which have no gradient of their own.
    """
    return _products(states, weight, bias, first, second, scaling)


@torch.library.custom_op("didact::lora_linear_backward", mutates_args=())
def _gradients(
    grad: torch.Tensor,
    states: torch.Tensor,
    weight: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    inner: torch.Tensor,
    scaling: float,
    to_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of states (empty when not asked for), first and second, for the gradient of the result."""
    return _backward_products(grad, states, weight if to_states else None, first, second, inner, scaling)


@lora_linear.register_fake
def _shapes(
    states: torch.Tensor, weight: torch.Tensor, _bias: Any, first: torch.Tensor, _second: Any, _scaling: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return states.new_empty(states.shape[0], weight.shape[0]), states.new_empty(states.shape[0], first.shape[0])


@_gradients.register_fake
def _gradient_shapes(
    _grad: Any, states: torch.Tensor, _w: Any, first: Any, second: Any, _inner: Any, _scaling: Any, to_states: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (torch.empty_like(states) if to_states else states.new_empty(0)), *map(torch.empty_like, (first, second))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, weight, _bias, first, second, ctx.scaling = inputs
    ctx.save_for_backward(states, weight, first, second, output[1])


def _backward(ctx: Any, grad: torch.Tensor, _inner: Any) -> tuple[torch.Tensor | None, ...]:
    states, weight, first, second, inner = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    to_states, to_first, to_second = _gradients(grad, states, weight, first, second, inner, ctx.scaling, wanted)
    return to_states if wanted else None, None, None, to_first, to_second, None


lora_linear.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("didact::lora_linear_4bit", mutates_args=())
def lora_linear_4bit(
    states: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    offset: torch.Tensor | None,
    scales_of_scales: torch.Tensor | None,
    code_of_scales: torch.Tensor | None,
    layout: list[int],
    kind: str,
    bias: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `lora_linear`, on a weight that bitsandbytes has packed.

    Args:
        states: [rows, inputs].
        packed: the weight's bytes, seen as numbers of any type.
        scales: one a block of weights, or their codes where they are quantized themselves.
        offset: of quantized scales.
        scales_of_scales: one a block of quantized scales.
        code_of_scales: what their codes stand for.
        layout: outputs, inputs, weights a block, scales a block.
        kind: `nf4` or `fp4`.
        bias: as of `lora_linear`, and so are `first`, `second` and `scaling`.
        first: A.
        second: B.
        scaling: factor of their product.
    """
    weight = _unpacked(states.dtype, packed, scales, offset, scales_of_scales, code_of_scales, layout, kind)
    return _products(states, weight, bias, first, second, scaling)


@torch.library.custom_op("didact::lora_linear_4bit_backward", mutates_args=())
def _gradients_4bit(
    grad: torch.Tensor,
    states: torch.Tensor,
    packed: torch.Tensor,
    scales: torch.Tensor,
    offset: torch.Tensor | None,
    scales_of_scales: torch.Tensor | None,
    code_of_scales: torch.Tensor | None,
    layout: list[int],
    kind: str,
    first: torch.Tensor,
    second: torch.Tensor,
    inner: torch.Tensor,
    scaling: float,
    to_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `_gradients`."""
    weight = None
    if to_states:
        weight = _unpacked(states.dtype, packed, scales, offset, scales_of_scales, code_of_scales, layout, kind)
    return _backward_products(grad, states, weight, first, second, inner, scaling)


@lora_linear_4bit.register_fake
def _shapes_4bit(
    states: torch.Tensor, _p: Any, _s: Any, _o: Any, _ss: Any, _cs: Any, layout: list[int], *rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    first = rest[2]
    return states.new_empty(states.shape[0], layout[0]), states.new_empty(states.shape[0], first.shape[0])


@_gradients_4bit.register_fake
def _gradient_shapes_4bit(_grad: Any, states: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    first, second, to_states = rest[7], rest[8], rest[11]
    return (torch.empty_like(states) if to_states else states.new_empty(0)), *map(torch.empty_like, (first, second))


def _setup_4bit(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, *weight, ctx.layout, ctx.kind, _bias, first, second, ctx.scaling = inputs
    ctx.save_for_backward(states, *weight, first, second, output[1])


def _backward_4bit(ctx: Any, grad: torch.Tensor, _inner: Any) -> tuple[torch.Tensor | None, ...]:
    states, *weight, first, second, inner = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    to_states, to_first, to_second = _gradients_4bit(
        grad, states, *weight, ctx.layout, ctx.kind, first, second, inner, ctx.scaling, wanted
    )
    return to_states if wanted else None, *(None,) * 8, to_first, to_second, None


lora_linear_4bit.register_autograd(_backward_4bit, setup_context=_setup_4bit)


def _unpacked(
    dtype: torch.dtype,
    packed: torch.Tensor,
    scales: torch.Tensor,
    offset: torch.Tensor | None,
    scales_of_scales: torch.Tensor | None,
    code_of_scales: torch.Tensor | None,
    layout: list[int],
    kind: str,
) -> torch.Tensor:
    outputs, inputs, block, block_of_scales = layout
    inner = None
    if scales_of_scales is not None:
        inner = QuantState(scales_of_scales, code=code_of_scales, blocksize=block_of_scales, dtype=torch.float32)
    shape = torch.Size((outputs, inputs))
    state = QuantState(scales, shape, blocksize=block, quant_type=kind, dtype=dtype, offset=offset, state2=inner)
    return dequantize_4bit(packed.view(-1, 1), state)


def _products(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    inner = torch.mm(states, first.to(states.dtype).t())
    output = functional.linear(states, weight, bias)
    return output.addmm_(inner, second.to(states.dtype).t(), alpha=scaling), inner


def _backward_products(
    grad: torch.Tensor,
    states: torch.Tensor,
    weight: torch.Tensor | None,
    first: torch.Tensor,
    second: torch.Tensor,
    inner: torch.Tensor,
    scaling: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of states (empty for no weight), first and second."""
    grad = grad.contiguous()
    to_inner = torch.mm(grad, second.to(grad.dtype)).mul_(scaling)
    to_first = torch.mm(to_inner.t(), states).to(first.dtype, copy=True)
    to_second = torch.mm(grad.t(), inner).to(second.dtype, copy=True).mul_(scaling)
    if weight is None:
        return states.new_empty(0), to_first, to_second
    return torch.mm(grad, weight).addmm_(to_inner, first.to(grad.dtype)), to_first, to_second
