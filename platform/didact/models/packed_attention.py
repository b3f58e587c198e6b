"""Attention over a packed row, sample by sample, on processors.

transformers keeps packed samples apart with a dense mask of length x length, so its attention computes every pair of
samples and throws the result away. On a GPU flash attention skips them; here samples are attended to side by side: the
same function without the waste.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from didact.errors import ModelError

_NAME = "didact_packed"
# Up to this length three plain matrix products beat SDPA's kernel, whose backward pass has a high price per call.
SHORT = 160


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
    starts = torch.nonzero(positions[0] == 0).flatten().tolist()
    if not starts or starts[0] != 0:
        raise ModelError(f"a packed row must begin with position 0; found {positions[0, :4].tolist()}")
    spans = list(zip(starts, [*starts[1:], length], strict=True))
    short = [span for span in spans if span[1] - span[0] <= SHORT and not kwargs.get("dropout")]
    long = [span for span in spans if span not in short]
    parts = [_side_by_side(query, key, value, short, kwargs.get("scaling"))] if short else []
    for start, end in long:
        states = (query[:, :, start:end], key[:, :, start:end], value[:, :, start:end])
        parts.append(sdpa_attention_forward(module, *states, None, **{**kwargs, "is_causal": True})[0][0])
    # Short samples came first, then long ones: back to the row's order.
    places = torch.cat([torch.arange(start, end) for start, end in short + long])
    return torch.cat(parts).index_select(0, places.argsort()).unsqueeze(0), None


def _side_by_side(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: list[tuple[int, int]], scaling: float | None
) -> torch.Tensor:
    """Causal attention of several samples in one batch of matrix products; [tokens, heads, head_dim] in their order."""
    longest = max(end - start for start, end in spans)
    # A sample's tokens, then its last token repeated: nothing looks ahead at the repetitions, and they are dropped.
    offsets = torch.arange(longest)
    take = torch.stack([(start + offsets).clamp(max=end - 1) for start, end in spans])
    keep = torch.cat([row * longest + offsets[: end - start] for row, (start, end) in enumerate(spans)])
    groups = query.shape[1] // key.shape[1]
    query, key, value = (_apart(states, take) for states in (query, key, value))
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    ahead = torch.full((longest, longest), float("-inf"), dtype=query.dtype).triu(1)
    scores = torch.matmul(query, key.transpose(2, 3)) * (scaling or query.shape[-1] ** -0.5) + ahead
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    attended = torch.matmul(weights, value).transpose(1, 2)  # [samples, longest, heads, head_dim]
    return attended.flatten(0, 1).index_select(0, keep)


def _apart(states: torch.Tensor, take: torch.Tensor) -> torch.Tensor:
    """[1, heads, length, head_dim] -> [samples, heads, longest, head_dim]."""
    heads, _, head_dim = states.shape[1:]
    taken = states[0].index_select(1, take.flatten())
    return taken.view(heads, *take.shape, head_dim).transpose(0, 1)


def _mask_for_padded_rows(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """No mask for packed rows, whose samples are cut apart; SDPA's own for padded ones."""
    if attention_mask is None:
        return None
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
