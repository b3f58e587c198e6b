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
    scales: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    scales_of_scales: torch.Tensor | None = None,
    code_of_scales: torch.Tensor | None = None,
    layout: list[int] | None = None,
    kind: str = "",
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's result with the adapter's added.

    Args:
        states: [rows, inputs].
        weight: frozen [outputs, inputs], of the states' dtype; with `scales` its bytes as bitsandbytes has packed them,
            seen as numbers of any type.
        bias: [outputs] or None, frozen.
        first: the adapter's A [rank, inputs].
        second: the adapter's B [outputs, rank].
        scaling: factor of their product.
        scales: of a weight in 4 bits, one a block of weights, or their codes where they are quantized themselves.
        offset: of quantized scales.
        scales_of_scales: one a block of quantized scales.
        code_of_scales: what their codes stand for.
        layout: of a weight in 4 bits: outputs, inputs, weights a block, scales a block.
        kind: of a weight in 4 bits: `nf4` or `fp4`.

    Returns:
        [rows, outputs], and the states in the adapter's inner space [rows, rank], which have no gradient of their own.
    """
    inner = torch.mm(states, first.to(states.dtype).t())
    plain = _plain(states.dtype, weight, scales, offset, scales_of_scales, code_of_scales, layout, kind)
    output = functional.linear(states, plain, bias)
    return output.addmm_(inner, second.to(states.dtype).t(), alpha=scaling), inner


@torch.library.custom_op("didact::lora_linear_backward", mutates_args=())
def _gradients(
    grad: torch.Tensor,
    states: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    inner: torch.Tensor,
    scaling: float,
    to_states: bool,
    weight: torch.Tensor,
    scales: torch.Tensor | None,
    offset: torch.Tensor | None,
    scales_of_scales: torch.Tensor | None,
    code_of_scales: torch.Tensor | None,
    layout: list[int] | None,
    kind: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of states (empty when not asked for), first and second, for the gradient of the result."""
    grad = grad.contiguous()
    to_inner = torch.mm(grad, second.to(grad.dtype)).mul_(scaling)
    to_first = torch.mm(to_inner.t(), states).to(first.dtype, copy=True)
    to_second = torch.mm(grad.t(), inner).to(second.dtype, copy=True).mul_(scaling)
    if not to_states:
        return states.new_empty(0), to_first, to_second
    plain = _plain(states.dtype, weight, scales, offset, scales_of_scales, code_of_scales, layout, kind)
    return torch.mm(grad, plain).addmm_(to_inner, first.to(grad.dtype)), to_first, to_second


@lora_linear.register_fake
def _shapes(
    states: torch.Tensor, _weight: Any, _bias: Any, first: torch.Tensor, second: torch.Tensor, *_rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return states.new_empty(states.shape[0], second.shape[0]), states.new_empty(states.shape[0], first.shape[0])


@_gradients.register_fake
def _gradient_shapes(
    _grad: Any, states: torch.Tensor, first: Any, second: Any, _inner: Any, _scaling: Any, to_states: bool, *_rest: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (torch.empty_like(states) if to_states else states.new_empty(0)), *map(torch.empty_like, (first, second))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    states, weight, _bias, first, second, ctx.scaling, *scales, ctx.layout, ctx.kind = inputs
    ctx.save_for_backward(states, first, second, output[1], weight, *scales)


def _backward(ctx: Any, grad: torch.Tensor, _inner: Any) -> tuple[torch.Tensor | None, ...]:
    states, first, second, inner, *weight = ctx.saved_tensors
    wanted = ctx.needs_input_grad[0]
    to_states, to_first, to_second = _gradients(
        grad, states, first, second, inner, ctx.scaling, wanted, *weight, ctx.layout, ctx.kind
    )
    return to_states if wanted else None, None, None, to_first, to_second, *(None,) * 7


lora_linear.register_autograd(_backward, setup_context=_setup)


def _plain(
    dtype: torch.dtype,
    weight: torch.Tensor,
    scales: torch.Tensor | None,
    offset: torch.Tensor | None,
    scales_of_scales: torch.Tensor | None,
    code_of_scales: torch.Tensor | None,
    layout: list[int] | None,
    kind: str,
) -> torch.Tensor:
    """The weight [outputs, inputs] as it is multiplied with."""
    if scales is None or layout is None:
        return weight
    outputs, inputs, block, block_of_scales = layout
    inner = None
    if scales_of_scales is not None:
        inner = QuantState(scales_of_scales, code=code_of_scales, blocksize=block_of_scales, dtype=torch.float32)
    shape = torch.Size((outputs, inputs))
    state = QuantState(scales, shape, blocksize=block, quant_type=kind, dtype=dtype, offset=offset, state2=inner)
    return dequantize_4bit(weight.view(-1, 1), state)
