"""Can samples share a row? Measured on the model itself, because names and signatures do not tell."""

import inspect
from typing import Any

import torch

from didact.models.base import base_of

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
    was_training = model.training
    model.eval()
    try:
        return _keeps_apart(model, model.get_input_embeddings().weight)
    finally:
        model.train(was_training)


def _keeps_apart(model: Any, embedding: torch.Tensor) -> bool:
    first, second = (torch.arange(start, start + _LENGTH, device=embedding.device) for start in (7, 31))
    row = torch.cat([first, second]).remainder(embedding.shape[0])[None]
    alone = _logits(model, row[:, _LENGTH:], torch.arange(_LENGTH))
    packed = _logits(model, row, torch.arange(_LENGTH).repeat(2))[:, _LENGTH:]
    continuous = _logits(model, row, torch.arange(2 * _LENGTH))[:, _LENGTH:]
    leaked, rounding = (continuous - alone).abs().mean(), (packed - alone).abs().mean()
    return bool(rounding <= _SHARE * leaked)


def _logits(model: Any, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, position_ids=positions[None].to(ids.device), use_cache=False).logits.float()
