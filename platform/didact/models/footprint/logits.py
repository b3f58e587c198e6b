"""The widest tensors of a step: what projecting onto the vocabulary takes at once."""

import torch
from transformers import PreTrainedModel

from didact.models.footprint.activations import Load
from didact.models.footprint.counting import Subject

LOGITS_AT_ONCE = 1 << 24
"""Logits of a packed row under a frozen output layer: few enough to bound memory, enough to keep products large."""
GPU_LOGITS_AT_ONCE = 1 << 27
"""On a GPU, where a product must be larger to be fast."""
_FLOAT = 4


def positions_at_once(vocabulary: int, *, on_cpu: bool = True) -> int:
    """How many positions of a packed row get their logits together."""
    return max(64, (LOGITS_AT_ONCE if on_cpu else GPU_LOGITS_AT_ONCE) // vocabulary)


def in_pieces(bare: PreTrainedModel, subject: Subject, load: Load) -> bool:
    """Whether logits are computed some positions at a time, and are gone before the backward pass begins."""
    head = bare.get_output_embeddings()
    frozen = not subject.adapter.trains_base and head.weight.dtype == subject.compute
    return load.packed and frozen and type(head) is torch.nn.Linear and head.bias is None


def logit_bytes(bare: PreTrainedModel, subject: Subject, load: Load) -> float:
    """Bytes of logits, their shares and their gradient.

    A packed row under a frozen plain output layer computes them for `positions_at_once`, which become their shares in
    place, on a GPU by way of a copy in float32; else all of them are there in float32, with their logarithms and their
    gradient.

    Args:
        bare: the base, each weight in the dtype it is held in.
        subject: what is trained.
        load: one forward pass.
    """
    head = bare.get_output_embeddings()
    values, hidden = head.weight.shape
    width = torch.finfo(subject.compute).bits // 8
    if in_pieces(bare, subject, load):
        gradient = load.projected_tokens * hidden * width
        at_once = min(positions_at_once(values, on_cpu=load.on_cpu), load.projected_tokens)
        return at_once * values * (width if load.on_cpu else width + _FLOAT) + gradient
    converted = values * hidden * width if head.weight.dtype != subject.compute else 0
    return load.projected_tokens * values * 3 * _FLOAT + converted
