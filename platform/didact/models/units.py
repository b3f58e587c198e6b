"""The repeated blocks of a model, by which it is cut over workers."""

import torch


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


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
