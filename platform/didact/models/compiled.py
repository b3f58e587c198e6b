"""Decoder blocks through `torch.compile`: chains of small operations become few generated loops."""

import torch
from transformers import PreTrainedModel

from didact.models.methods.blocks import decoder_blocks


def compile_blocks(model: torch.nn.Module, backend: str = "inductor") -> int:
    """Compile each decoder block in place, at its first call; blocks share one compilation.

    The blocks and not the whole model, so that compiling takes as long for 80 blocks as for two; and with lengths left
    open, so that rows of every length share it too. Names of parameters stay as they are.

    Args:
        model: a causal language model, with its adapter attached.
        backend: of `torch.compile`.

    Returns:
        How many blocks will be compiled.

    Raises:
        ModelError: the model has no blocks that can be told apart.
    """
    base: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks = decoder_blocks(base)
    for block in blocks:
        base.get_submodule(block.name).compile(dynamic=True, backend=backend)
    return len(blocks)
