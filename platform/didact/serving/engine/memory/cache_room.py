"""Whether keys and values of more rows have room: rows wait outside rather than end others for want of memory."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

_GPU_SHARE = 0.8
"""Of what the base leaves free; a step needs the rest, and memory that grows lies there twice for a moment."""


class CacheRoom:
    """Counts every row at its full length, prompt and longest answer, padded to the longest of its batch."""

    def __init__(self, base: PreTrainedModel, context_length: int, cache_bytes: int | None) -> None:
        """Measure what a token takes, with one token.

        Args:
            base: on its device.
            context_length: tokens of prompt and answer together.
            cache_bytes: memory for keys and values; None: on a GPU what is free, on a processor without a limit.
        """
        self._context_length = context_length
        if cache_bytes is None and base.device.type == "cuda":
            cache_bytes = int(torch.cuda.mem_get_info(base.device)[0] * _GPU_SHARE)
        self.cache_bytes = cache_bytes
        per_token = 0 if cache_bytes is None else _bytes_per_token(base)
        self.num_tokens = cache_bytes // per_token if cache_bytes is not None and per_token else None
        """Tokens that have room; None for any number."""

    def why_never(self, num_prompt: int, num_answer: int) -> str | None:
        """Why a prompt and its longest answer would find no room alone; None where they would."""
        num_answer = min(num_answer, self._context_length - num_prompt)
        if self.num_tokens is None or num_prompt + num_answer <= self.num_tokens:
            return None
        return (
            f"This server has memory for keys and values of {self.num_tokens} tokens ({self.cache_bytes} bytes); the "
            f"prompt has {num_prompt} tokens and its answer up to {num_answer}."
        )

    def usage(self, batches: Sequence[Sequence[int]]) -> float | None:
        """Share that is spoken for, above 1 where there is no room for all; None without a limit.

        Args:
            batches: the full lengths of each one's rows, in tokens.
        """
        if self.num_tokens is None:
            return None
        lengths = ([min(length, self._context_length) for length in rows] for rows in batches if rows)
        return sum(len(rows) * max(rows) for rows in lengths) / max(self.num_tokens, 1)


def _bytes_per_token(base: PreTrainedModel) -> int:
    """Of keys and values over all layers; 0 for layers that keep a state of fixed size instead."""
    ids = torch.zeros((1, 1), dtype=torch.long, device=base.device)
    with torch.inference_mode():
        cache = getattr(base(input_ids=ids, use_cache=True), "past_key_values", None)
    kept = [getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")]
    return sum(each.numel() * each.element_size() for each in kept if isinstance(each, torch.Tensor))
