"""The repeated blocks of a model: what it is cut by over workers, and what is compiled once for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from didact.models.base import base_of
from didact.models.methods.blocks import decoder_blocks


def repeated_blocks(model: torch.nn.Module) -> tuple[torch.nn.Module, ...]:
    """The members of the module list that holds most parameters, first to last; empty where nothing repeats.

    Found from the tree alone: a list of modules of one class, whatever its name, with or without adapters inside.
    """
    lists = [
        tuple(module)
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList) and len({type(member) for member in module}) == 1
    ]
    return max(lists, key=lambda members: sum(_size(member) for member in members), default=())


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
    base: PreTrainedModel = base_of(model)
    blocks = decoder_blocks(base)
    for block in blocks:
        base.get_submodule(block.name).compile(dynamic=True, backend=backend)
    return len(blocks)


@contextmanager
def uncompiled(model: torch.nn.Module) -> Iterator[None]:
    """Within it compiled modules compute as they are written, so that a pass of another shape compiles nothing."""
    compiled = [(module, module._compiled_call_impl) for module in model.modules() if module._compiled_call_impl]
    for module, _ in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in compiled:
            module._compiled_call_impl = call


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
