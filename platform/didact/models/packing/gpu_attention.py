"""Attention inside each sample of a packed row on a GPU, by PyTorch's own kernels.

Samples of instruction data are short: flash attention over all of them at once (`varlen_attn`) is fastest. Where they
are long, and the card has a faster kernel for single samples (cuDNN's on Hopper), they are attended to one by one.
`benchmarks/packed_attention.py --device cuda` measures both beside a dense mask and flex_attention.
"""

import inspect
import itertools
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from didact.devices import this_machine
from didact.errors import ModelError
from didact.models.base import base_of
from didact.models.packing.packed_plan import sample_spans
from didact.models.versions import VARLEN

_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_FLASH_HEAD = 256
"""Largest head size of flash attention; sizes are multiples of 8."""
_LONG = 1024
"""Tokens of a sample, in the mean of a row, from which on one by one is faster on Hopper."""
_HOPPER = (9, 0)


def row_bounds(model: Any, positions: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """What a packed row's attention on a GPU must know of it, in transformers' words for its flash attention.

    Found once for all layers, and from positions that still lie on the CPU, so that the GPU need not be waited for.

    Args:
        model: that the row is for, with or without an adapter.
        positions: int64 [1, length] on the CPU, restarting at 0 with each sample.
        device: where the model computes.

    Returns:
        Arguments of the model's forward pass; none on a processor, or for a model that hands none on to its layers.
    """
    if device.type == "cpu":
        return {}
    if not takes_facts(base_of(model)):
        return {}
    bounds, longest = _bounds(positions)
    there = bounds.to(device, non_blocking=True)
    facts = {"cu_seq_lens_q": there, "cu_seq_lens_k": there, "max_length_q": longest, "max_length_k": longest}
    gpu = this_machine().gpu(device)
    if gpu and gpu.capability >= _HOPPER and positions.shape[1] >= _LONG * (len(bounds) - 1):
        facts["sample_bounds"] = bounds
    return facts


def takes_facts(base: torch.nn.Module) -> bool:
    """Whether a model hands further arguments of its forward pass on to its layers."""
    kinds = {each.kind for each in inspect.signature(base.forward).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def best_alone(query: torch.Tensor, value: torch.Tensor, facts: dict[str, Any]) -> bool:
    """Whether samples are to be attended to one by one.

    Args:
        query: [1, heads, length, head_dim].
        value: [1, key heads, length, head_dim].
        facts: arguments of transformers' attention interface, those of `row_bounds` among them.
    """
    head, window = query.shape[-1], facts.get("sliding_window")
    fits = query.dtype in _FLASH_DTYPES and head == value.shape[-1] and head % 8 == 0 and head <= _FLASH_HEAD
    if VARLEN is None or not fits or (window and not VARLEN.has_window):
        return True
    # Compiled, a block would break in two around each sample, which costs more than is won.
    return facts.get("sample_bounds") is not None and not window and not torch.compiler.is_compiling()


def flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, facts: dict[str, Any]
) -> torch.Tensor:
    """All samples at once, [1, length, heads, head_dim]; `best_alone` has said no."""
    assert VARLEN is not None
    bounds, longest = facts.get("cu_seq_lens_q"), facts.get("max_length_q")
    if bounds is None or longest is None:
        bounds, longest = _bounds(facts["position_ids"])
        bounds = bounds.to(query.device)
    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    return VARLEN(queries, keys, values, bounds, longest, scaling, facts.get("sliding_window"))[None]


@torch.compiler.disable  # else each row of other lengths is compiled anew
def sample_by_sample(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, facts: dict[str, Any]
) -> torch.Tensor:
    """SDPA for each sample, [1, length, heads, head_dim]; also where weights are dropped out, on every device.

    Where samples begin and end is in `facts`: `sample_bounds` as a tensor or a list, or else `position_ids`.
    """
    bounds, window = facts.get("sample_bounds"), facts.get("sliding_window")
    if bounds is None:
        bounds = _bounds(facts["position_ids"])[0]
    ends = bounds if isinstance(bounds, list) else bounds.tolist()
    parts = []
    with torch.autocast(query.device.type, enabled=False):
        for start, end in itertools.pairwise(ends):
            states = (query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
            seen = _seen(end - start, window, query.device) if window and window < end - start else None
            parts.append(sdpa_attention_forward(module, *states, seen, **{**facts, "is_causal": seen is None})[0])
    return torch.cat(parts, dim=1)


def _bounds(positions: torch.Tensor) -> tuple[torch.Tensor, int]:
    """int32 [samples + 1], where samples begin and the end, on the CPU; and the longest sample's tokens."""
    spans = sample_spans(positions)
    if any(span.shared for span in spans):
        raise ModelError("samples of a packed row share their first tokens, which only attention on processors knows")
    ends = [0, *(span.end for span in spans)]
    return torch.tensor(ends, dtype=torch.int32), max(span.end - span.start for span in spans)


def _seen(length: int, window: int, device: torch.device) -> torch.Tensor:
    """bool [1, 1, length, length]: whom each token of one sample sees inside its window."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().triu(1 - window)[None, None]
