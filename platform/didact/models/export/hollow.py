"""A model whose parameters take no memory, and which becomes real one module at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


def hollow_model(config: PreTrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A float32 model on the CPU in which every parameter is one zero, stretched to the parameter's shape.

    Unlike a model on the meta device it can carry a real adapter: PEFT puts an adapter where the base's weights are.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, dtype=torch.float32)
    stretched: dict[int, torch.nn.Parameter] = {}  # by identity, so that tied parameters stay tied
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in stretched:
                stretched[id(parameter)] = torch.nn.Parameter(_stretched(parameter.shape), requires_grad=False)
            setattr(module, name, stretched[id(parameter)])
    return model.eval()


@contextmanager
def filled(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> Iterator[None]:
    """Give a module of a hollow model real weights inside the block.

    Args:
        module: of a hollow model.
        tensors: values under their names in the module, taken over without a copy.
    """
    parameters = dict(module.named_parameters())
    try:
        for name, tensor in tensors.items():
            parameters[name].data = tensor
        yield
    finally:
        for name in tensors:
            parameters[name].data = _stretched(parameters[name].shape)


def _stretched(shape: torch.Size) -> torch.Tensor:
    return torch.zeros(()).expand(shape)
