"""LoRA layers that compute with one operator on a GPU, in place of PEFT's, while they are trained."""

from collections.abc import Callable
from typing import Any

import torch
from bitsandbytes.functional import QuantState
from peft import PeftModel
from peft.tuners.lora import Linear
from peft.tuners.lora.bnb import Linear4bit

from didact.models.adapter.lora_operators import lora_linear

_HALF = (torch.bfloat16, torch.float16)


def fuse_lora(model: PeftModel) -> int:
    """Let plain LoRA layers compute in one operator while they are trained on a GPU.

    Layers with dropout, a bias of their own, a variant such as DoRA or a base in 8 bits stay as they are.

    Args:
        model: with a LoRA adapter; others are left alone.

    Returns:
        How many layers were changed.
    """
    layers = [module for module in model.modules() if type(module) in _FUSED and _fits(module)]
    for layer in layers:
        layer.__class__ = _FUSED[type(layer)]  # a class of its own, not a forward of each: torch.compile shares it
    return len(layers)


def _fits(layer: Linear | Linear4bit) -> bool:
    dropped = any(not isinstance(each, torch.nn.Identity) for each in layer.lora_dropout.values())
    biased = any(each.bias is not None for each in layer.lora_B.values())
    frozen = not layer.base_layer.weight.requires_grad
    known = isinstance(layer, Linear4bit) or type(layer.base_layer) is torch.nn.Linear
    return known and frozen and not (dropped or biased or layer.lora_variant or getattr(layer, "fan_in_fan_out", False))


class _Fused:
    """The forward pass under autocast to half precision with one adapter in force; in every other case PEFT's."""

    fused_on = ("cuda",)
    """Kinds of devices on which it is done; elsewhere layers compute as PEFT does."""
    base_layer: Any
    active_adapters: list[str]
    disable_adapters: bool
    merged: bool
    lora_A: Any  # noqa: N815 - PEFT's name
    lora_B: Any  # noqa: N815
    scaling: dict[str, float]
    _computes_in: Callable[[torch.dtype], bool]
    _result: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The layer's result with the adapter's added, for `x` [..., inputs]."""
        names, kind = self.active_adapters, x.device.type
        half = kind in self.fused_on and torch.is_autocast_enabled(kind) and x.dtype in _HALF
        # ZeRO-3 gathers a weight for the forward pass of its own layer only, and leaves an empty row otherwise.
        whole = self.base_layer.weight.dim() == 2 and self._computes_in(x.dtype)
        plain = len(names) == 1 and not (args or kwargs or self.disable_adapters or self.merged)
        if not (half and whole and plain):
            return super().forward(x, *args, **kwargs)  # type: ignore[misc]
        first, second = self.lora_A[names[0]].weight, self.lora_B[names[0]].weight
        rows = x.reshape(-1, x.shape[-1])
        return self._result(rows, first, second, self.scaling[names[0]]).view(*x.shape[:-1], -1)


class FusedLinear(_Fused, Linear):
    """On a layer whose weight is held as it is computed with."""

    def _computes_in(self, dtype: torch.dtype) -> bool:
        return self.base_layer.weight.dtype == dtype

    def _result(self, rows: torch.Tensor, first: torch.Tensor, second: torch.Tensor, scaling: float) -> torch.Tensor:
        return lora_linear(rows, self.base_layer.weight, self.base_layer.bias, first, second, scaling)[0]


class FusedLinear4bit(_Fused, Linear4bit):
    """On a layer in 4 bits, whose weight is unpacked for each product."""

    def _computes_in(self, dtype: torch.dtype) -> bool:
        state = self._state()
        return state is not None and state.dtype == dtype

    def _state(self) -> QuantState | None:
        """How the weight is packed; one that FSDP has gathered is a plain parameter, and its layer knows."""
        state = getattr(self.base_layer.weight, "quant_state", None)
        return state if state is not None else getattr(self.base_layer, "quant_state", None)

    def _result(self, rows: torch.Tensor, first: torch.Tensor, second: torch.Tensor, scaling: float) -> torch.Tensor:
        weight, state = self.base_layer.weight, self._state()
        assert state is not None  # `_computes_in` has seen it
        inner = state.state2 if state.nested else None
        return lora_linear(
            rows,
            weight,
            self.base_layer.bias,
            first,
            second,
            scaling,
            state.absmax,
            state.offset if inner else None,
            inner.absmax if inner else None,
            inner.code if inner else None,
            [*state.shape, state.blocksize, inner.blocksize if inner else 0],
            state.quant_type,
        )[0]


_FUSED: dict[type, type] = {Linear: FusedLinear, Linear4bit: FusedLinear4bit}
