"""Attention over a packed row, sample by sample, on processors.

transformers keeps packed samples apart with a dense mask of length x length, so its attention computes every pair of
samples and throws the result away. On a GPU flash attention skips them; here samples are attended to side by side: the
same function without the waste.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from didact.models.packing.packed_kernel import packed_kernel
from didact.models.packing.packed_plan import sample_spans

_NAME = "didact_packed"


def use_packed_attention(model: PreTrainedModel, max_length: int) -> bool:
    """Switch a base model's attention to that of samples side by side, where that is the same function.

    Args:
        model: as loaded; only a model on a CPU that uses PyTorch's SDPA is switched.
        max_length: longest sample, in tokens. Models whose window is shorter keep their mask.

    Returns:
        Whether the model was switched.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    fits = model._supports_attention_backend and config._attn_implementation == "sdpa"
    if model.device.type != "cpu" or not fits or (window and window < max_length):
        return False
    AttentionInterface.register(_NAME, packed_attention)
    AttentionMaskInterface.register(_NAME, _mask_for_padded_rows)
    model.set_attn_implementation(_NAME)
    return True


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sample of a packed row; anything else goes to SDPA unchanged.

    Args:
        module: the attention layer.
        query: [1, heads, length, head_dim].
        key: [1, key heads, length, head_dim].
        value: as `key`.
        attention_mask: None for a packed row.
        kwargs: of transformers' attention interface; `position_ids` [1, length] restart at 0 with each sample.

    Returns:
        [1, length, heads, head_dim], and no attention weights.
    """
    positions = kwargs.get("position_ids")
    length = query.shape[2]
    if attention_mask is not None or positions is None or query.shape[0] != 1 or key.shape[2] != length:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if kwargs.get("dropout"):
        return _sample_by_sample(module, query, key, value, kwargs), None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype
    states = (each.to(dtype) for each in (query, key, value))
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast("cpu", enabled=False):
        return packed_kernel()(*states, positions, scaling), None


def _sample_by_sample(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, kwargs: dict[str, Any]
) -> torch.Tensor:
    """SDPA for each sample: where attention weights are dropped out, which the kernel does not do."""
    parts = []
    for start, end in sample_spans(kwargs["position_ids"]):
        states = (query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
        parts.append(sdpa_attention_forward(module, *states, None, **{**kwargs, "is_causal": True})[0])
    return torch.cat(parts, dim=1)


def _mask_for_padded_rows(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """No mask for packed rows, whose samples are cut apart; SDPA's own for padded ones."""
    if attention_mask is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
