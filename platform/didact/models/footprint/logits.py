"""The widest tensors of a step: what projecting onto the vocabulary takes at once."""

import torch
from transformers import PreTrainedModel

from didact.models.footprint.activations import Load
from didact.models.footprint.counting import Subject

_CHUNK = 128
_FLOAT = 4


def logit_bytes(bare: PreTrainedModel, subject: Subject, load: Load) -> float:
    """Bytes of logits, their shares and their gradient.

    A packed row under a frozen plain output layer computes them for 128 positions at a time; else all of them are there
    in float32, with their logarithms and their gradient.

    Args:
        bare: the base, each weight in the dtype it is held in.
        subject: what is trained.
        load: one forward pass.
    """
    head = bare.get_output_embeddings()
    values, hidden = head.weight.shape
    width = torch.finfo(subject.compute).bits // 8
    cast = width if width < _FLOAT else 0
    frozen = not subject.adapter.trains_base and head.weight.dtype == subject.compute
    if load.packed and frozen and type(head) is torch.nn.Linear and head.bias is None:
        gradient = load.projected_tokens * hidden * width
        return min(_CHUNK, load.projected_tokens) * values * (2 * _FLOAT + cast) + gradient
    converted = values * hidden * width if head.weight.dtype != subject.compute else 0
    return load.projected_tokens * values * 3 * _FLOAT + converted
