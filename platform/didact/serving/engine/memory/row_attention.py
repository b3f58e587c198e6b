"""Attention of a decoding step over each row's own columns, on processors.

Rows lie at the right of as many columns as the longest one has. transformers' attention reads all of these for every
row and a mask throws away what is not the row's own: beside one long row every short one costs as much. Here each row's
columns are read alone, where that is less.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from didact.models.packing.packed_attention import is_biased

BY_ROWS = "didact_rows"
"""The name of this attention among transformers'."""
_WORTH = 40_000
"""Numbers of keys and values that a thread reads in the time that a call of attention takes beside its reading."""


@dataclass(frozen=True)
class _Starts:
    columns: Sequence[int]
    """Each row's first column that it may attend to."""
    whole: dict[int, tuple[torch.Tensor, list[bool]]] = field(default_factory=dict)
    """Whether each row attends to all columns from its first one on; by identity of the mask, which is held for it."""

    def are_whole(self, mask: torch.Tensor) -> list[bool]:
        if id(mask) not in self.whole:
            counts = mask[:, 0, 0].sum(-1).tolist()
            found = [start + count == mask.shape[-1] for start, count in zip(self.columns, counts, strict=True)]
            self.whole[id(mask)] = mask, found
        return self.whole[id(mask)][1]


_STARTS: ContextVar[_Starts | None] = ContextVar("first columns of rows", default=None)


def use_row_attention(base: PreTrainedModel) -> bool:
    """Switch a base to attention that can read each row's columns alone, where it computes on a processor by SDPA.

    Returns:
        Whether it was switched. All but what is within `rows_beginning` stays transformers' own attention.
    """
    text = base.config.get_text_config()
    if base.device.type != "cpu" or not base._supports_attention_backend or text._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(BY_ROWS, row_attention)
    AttentionMaskInterface.register(BY_ROWS, sdpa_mask)
    base.set_attn_implementation(BY_ROWS)
    return True


def reads_rows(base: PreTrainedModel) -> bool:
    """Whether a base's attention looks at `rows_beginning`."""
    return bool(base.config.get_text_config()._attn_implementation == BY_ROWS)


@contextlib.contextmanager
def rows_beginning(columns: Sequence[int]) -> Iterator[None]:
    """Within it, a step of one token a row may read each row from its first column on.

    Args:
        columns: the first one of each row that it may attend to.
    """
    token = _STARTS.set(_Starts(columns))
    try:
        yield
    finally:
        _STARTS.reset(token)


def row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention row by row where rows begin at columns so different that it pays; else SDPA over all of them.

    Args:
        module: the attention layer.
        query: [rows, heads, 1, head size].
        key: [rows, key heads, columns, head size].
        value: as `key`; its head size may be another.
        attention_mask: bool [rows, 1, 1, columns], of this layer.
        kwargs: of transformers' attention interface.

    Returns:
        [rows, 1, heads, value's head size], and no attention weights.
    """
    starts = _STARTS.get()
    if starts is None or attention_mask is None or not _pays(starts.columns, query, key, value, attention_mask, kwargs):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows, heads, _, size = query.shape
    # Heads that share keys are positions of one head: a single token needs no causal order among them.
    query = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    found = query.new_empty(*query.shape[:3], value.shape[-1])
    for row, (start, whole) in enumerate(zip(starts.columns, starts.are_whole(attention_mask), strict=True)):
        own = slice(row, row + 1)
        found[own] = torch.nn.functional.scaled_dot_product_attention(
            query[own],
            key[own, :, start:],
            value[own, :, start:],
            attn_mask=None if whole else attention_mask[own, ..., start:],
            scale=kwargs.get("scaling"),
        )
    return found.reshape(rows, 1, heads, value.shape[-1]), None


def _pays(
    columns: Sequence[int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    kwargs: dict[str, Any],
) -> bool:
    rows, width = len(columns), key.shape[1] * (key.shape[-1] + value.shape[-1])
    one_token = query.shape[0] == rows and query.shape[2] == 1
    fitting = one_token and mask.dtype == torch.bool and mask.shape == (rows, 1, 1, key.shape[2])
    return fitting and not is_biased(kwargs) and sum(columns) * width > rows * _WORTH * torch.get_num_threads()
