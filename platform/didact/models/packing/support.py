"""Can samples share a row? Measured on the model itself, because names and signatures do not tell."""

import inspect
from typing import Any

import torch

from didact.models.base import base_of
from didact.models.dropout import evaluation_mode, own_dropout
from didact.models.packing.packed_attention import uses_packed_attention

_LENGTH = 6
_SHARE = 0.1


@torch.inference_mode()  # type: ignore[untyped-decorator]
def supports_packing(model: Any) -> bool:
    """Whether restarting `position_ids` keeps samples in one row apart, as `tokens.pack` relies on.

    Two samples of 6 tokens are computed alone, packed, and as one continuous sample. The packed logits must be at least
    ten times closer to the separate ones than the continuous ones are, which tells leakage from rounding in any dtype.
    Families with ALiBi (BLOOM) or positions counted from the mask attend across the border and are found out here.

    Args:
        model: a causal language model, with or without an adapter, on its device; its mode is left as it was.
    """
    base = base_of(model)
    if "position_ids" not in inspect.signature(base.forward).parameters:
        return False
    with evaluation_mode(model):
        return _keeps_apart(model, model.get_input_embeddings().weight)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def shares_prefixes(model: Any, device: torch.device) -> bool:
    """Whether a packed row may hold first tokens that samples have in common once, as `tokens.pack` can write it.

    On a processor, by attention over packed rows (`use_packed_attention`), where nothing is dropped: a token that is
    there once is dropped once for all. Measured as packing is: layers that carry something from token to token beside
    attention, or count positions themselves, are found out.

    Args:
        model: a causal language model, with or without an adapter; its mode is left as it was.
        device: where it will compute.
    """
    if device.type != "cpu" or own_dropout(model) or not uses_packed_attention(base_of(model)):
        return False
    with evaluation_mode(model):
        return _continues(model, model.get_input_embeddings().weight)


def _continues(model: Any, embedding: torch.Tensor) -> bool:
    """In one row, as each pass reads all weights: a sample, one that shares its head, that whole, with another head."""
    head, first, second, other = (torch.arange(start, start + _LENGTH) for start in (7, 31, 53, 79))
    row = torch.cat([head, first, second, head, second, other, second]).remainder(embedding.shape[0])[None]
    whole = torch.arange(2 * _LENGTH)
    logits = _logits(model, row, torch.cat([whole, whole[_LENGTH:], whole, whole]))
    shared, alone, behind = (logits[:, end - _LENGTH : end] for end in (3 * _LENGTH, 5 * _LENGTH, 7 * _LENGTH))
    return _is_near(shared, alone, behind)


def _keeps_apart(model: Any, embedding: torch.Tensor) -> bool:
    first, second = (torch.arange(start, start + _LENGTH, device=embedding.device) for start in (7, 31))
    row = torch.cat([first, second]).remainder(embedding.shape[0])[None]
    alone = _logits(model, row[:, _LENGTH:], torch.arange(_LENGTH))
    packed = _logits(model, row, torch.arange(_LENGTH).repeat(2))[:, _LENGTH:]
    continuous = _logits(model, row, torch.arange(2 * _LENGTH))[:, _LENGTH:]
    return _is_near(packed, alone, continuous)


def _is_near(packed: torch.Tensor, alone: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether logits differ from those of the sample alone by rounding, and not as where it sees something else."""
    leaked, rounding = (other - alone).abs().mean(), (packed - alone).abs().mean()
    return bool(rounding <= _SHARE * leaked)


def _logits(model: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, position_ids=positions[None].to(ids.device), use_cache=False).logits.float()
