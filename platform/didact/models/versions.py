"""What differs between the versions of PyTorch that didact runs with, in one place."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None


@dataclass(frozen=True, slots=True)
class VarlenAttention:
    """PyTorch's flash attention over samples laid end to end, as this version of PyTorch has it."""

    function: Callable[..., torch.Tensor]
    has_window: bool
    """Whether it can limit how far back a token sees."""
    options: dict[str, Any]

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bounds: torch.Tensor,
        longest: int,
        scale: float,
        window: int | None = None,
    ) -> torch.Tensor:
        """Causal attention inside each sample.

        Args:
            query: [tokens, heads, head_dim], bfloat16 or float16, on a GPU.
            key: [tokens, key heads, head_dim].
            value: as `key`.
            bounds: int32 [samples + 1], where each sample begins, and the end.
            longest: tokens of the longest sample.
            scale: factor of the scores.
            window: tokens that a token sees, itself included; None for all before it.

        Returns:
            [tokens, heads, head_dim].
        """
        if self.has_window:
            causal: dict[str, Any] = {"window_size": (-1 if window is None else window - 1, 0)}
        else:
            causal = {"is_causal": True}
        return self.function(query, key, value, bounds, bounds, longest, longest, scale=scale, **causal, **self.options)


def _varlen_attention() -> VarlenAttention | None:
    if varlen_attn is None:
        return None
    known = inspect.signature(varlen_attn).parameters
    return VarlenAttention(varlen_attn, "window_size" in known, {"enable_gqa": True} if "enable_gqa" in known else {})


VARLEN = _varlen_attention()
"""`torch.nn.attention.varlen.varlen_attn`; None before PyTorch 2.10.

Versions up to 2.11 share key heads among query heads unasked, later ones want to be told (`enable_gqa`); the first one
says `is_causal` where later ones take a window. A constant, because `torch.compile` reads it within a model.
"""
