"""Where each token of a GLM-6B row stands, and what it may look at."""

from dataclasses import dataclass

import torch
from transformers import Cache
from transformers.cache_utils import DynamicLayer

NEVER = 2**31
"""The place of a token that a sample does not have."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each new token stands. All [batch, new tokens]."""

    place: torch.Tensor
    answer_place: torch.Tensor
    start: torch.Tensor
    """Place of <sop>; a sample without one is all answer."""
    mask_place: torch.Tensor
    sample: torch.Tensor
    """Number of the sample in its row, for packed rows."""


def places(ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None, num_past: int) -> torch.Tensor:
    """[batch, new tokens]: each token's place in its sample, as given, or counted without padding."""
    if positions is not None:
        return positions.expand(ids.shape)
    if mask is not None:
        return (mask.long().cumsum(1) - 1).clamp(min=0)[:, num_past:]
    return torch.arange(num_past, num_past + ids.shape[1], device=ids.device).expand(ids.shape)


def remembered(
    past: Cache, layer: int, start: torch.Tensor, mask_place: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Places found in earlier tokens, kept per token in a further layer of the cache, as rows come and go with it."""
    found = torch.stack([start, mask_place], dim=-1)
    kept = torch.where(found < NEVER, found + 1, 0).float()[:, None]
    if len(past.layers) == layer:  # made for the blocks alone
        past.layers.append(DynamicLayer())
    if past.get_seq_length(layer):
        earlier = past.layers[layer].keys[:, :, -1:, :]
        kept = earlier.where(earlier > 0, kept)
    past.update(kept, kept[..., :1], layer)
    known = torch.where(kept > 0, kept - 1, NEVER)[:, 0].long()
    return known[..., 0], known[..., 1]


def visible(layout: Layout, mask: torch.Tensor | None, num_past: int) -> torch.Tensor:
    """[batch, 1, new tokens, all tokens]: earlier tokens and the whole prompt of the same sample, no padding."""
    batch, tokens = layout.sample.shape
    order = torch.arange(tokens, device=layout.sample.device)
    in_prompt = layout.answer_place == 0
    seen = (order[None, :] <= order[:, None]) | in_prompt[:, None, :]
    seen = seen & (layout.sample[:, :, None] == layout.sample[:, None, :])
    seen = torch.cat([seen.new_ones(batch, tokens, num_past), seen], dim=-1)
    if mask is not None:
        seen = seen & mask.bool()[:, None, :]
    itself = torch.cat([seen.new_zeros(tokens, num_past), torch.eye(tokens, device=seen.device).bool()], dim=-1)
    return (seen | itself)[:, None]  # padding looks at itself: a row that looks nowhere would be NaN
