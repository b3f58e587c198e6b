"""Attention over a packed row, sample by sample, on processors and GPUs.

transformers keeps packed samples apart with a dense mask of length x length, so its attention computes every pair of
samples and throws the result away. Here samples are attended to side by side: the same function without the waste. On
processors by `packed_kernel`, on GPUs by PyTorch's kernels; never by a mask of length x length.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from didact.models.packing.gpu_attention import best_alone, flash_attention, sample_by_sample
from didact.models.packing.packed_kernel import packed_kernel

_NAME = "didact_packed"
_ASKING = "didact_asking"
_ANSWERS: ContextVar[list[bool]] = ContextVar("answers of a model's layers")


def use_packed_attention(
    model: PreTrainedModel, max_length: int, device: torch.device | None = None, *, apart: bool | None = None
) -> bool:
    """Switch a base model's attention to that of samples side by side, where that is the same function.

    Args:
        model: as loaded; only a model that uses PyTorch's SDPA is switched, and of these only one whose layers tell
            their attention where samples begin. Others keep transformers' mask.
        max_length: longest sample, in tokens. On processors models whose window is shorter keep their mask.
        device: where it will compute; default where it lies.
        apart: whether its layers tell their attention where samples begin; None: they are asked, by a forward pass.

    Returns:
        Whether the model was switched.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    cut_by_window = bool(window and window < max_length) and (device or model.device).type == "cpu"
    if not model._supports_attention_backend or config._attn_implementation != "sdpa" or cut_by_window:
        return False
    for name, attention in ((_NAME, packed_attention), (_ASKING, _answer)):
        AttentionInterface.register(name, attention)
        AttentionMaskInterface.register(name, _mask_for_padded_rows)
    found = _tells_samples_apart(model) if apart is None else apart
    model.set_attn_implementation(_NAME if found else "sdpa")
    return found


@contextlib.contextmanager
def packed_attention_inside(model: PreTrainedModel, max_length: int) -> Iterator[bool]:
    """Inside the block a base model is switched as by `use_packed_attention`; says whether it could be."""
    before = model.config.get_text_config()._attn_implementation
    try:
        yield use_packed_attention(model, max_length)
    finally:
        model.set_attn_implementation(before)


def uses_packed_attention(model: PreTrainedModel) -> bool:
    """Whether a base model was switched."""
    return bool(model.config.get_text_config()._attn_implementation == _NAME)


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
        kwargs: of transformers' attention interface; `position_ids` [1, length] restart with each sample.

    Returns:
        [1, length, heads, head_dim], and no attention weights.
    """
    positions = kwargs.get("position_ids")
    length = query.shape[2]
    alone = query.shape[0] != 1 or key.shape[2] != length
    if attention_mask is not None or positions is None or alone or is_biased(kwargs):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype
    query, key, value = (each.to(dtype) for each in (query, key, value))
    if kwargs.get("dropout") or (kind != "cpu" and best_alone(query, value, kwargs)):
        return sample_by_sample(module, query, key, value, kwargs), None
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast(kind, enabled=False):
        if kind == "cpu":
            return packed_kernel(query, key, value, positions, scaling), None
        return flash_attention(query, key, value, scaling, kwargs), None


def _tells_samples_apart(model: PreTrainedModel) -> bool:
    """Whether every attention of the model, asked with two tokens, leaves it to positions who sees whom.

    Some families hand no positions on to it (Llama 4, StarCoder), some a mask of their own (Doge): then a packed row
    would be attended to as one sample.
    """
    device = model.get_input_embeddings().weight.device
    positions = torch.arange(2, device=device)[None]
    model.set_attn_implementation(_ASKING)
    token = _ANSWERS.set([])
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros_like(positions), position_ids=positions, use_cache=False)
        answers = _ANSWERS.get()
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False  # it reads the mask (the indexer of DeepSeek-V3.2)
    finally:
        _ANSWERS.reset(token)
    return bool(answers) and all(answers)


def _answer(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    known = attention_mask is None and kwargs.get("position_ids") is not None
    _ANSWERS.get().append(bool(known and causal and not is_biased(kwargs)))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def is_biased(facts: dict[str, Any]) -> bool:
    """Whether attention is asked, by the arguments of transformers' interface, for more than a mask and a scale."""
    return any(facts.get(each) is not None for each in ("position_bias", "softcap"))


def _mask_for_padded_rows(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """No mask for packed rows, whose samples are cut apart; SDPA's own for padded ones."""
    if attention_mask is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
