"""Training some of the base's own weights: which, how they are kept, how they are put back for a while."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from didact.errors import AdapterError, ModelError
from didact.models.methods.blocks import decoder_blocks
from didact.spec import PartialSpec


def train_partially(model: PreTrainedModel, spec: PartialSpec) -> PreTrainedModel:
    """Unfreeze the last blocks and the embeddings as the spec asks.

    Raises:
        ModelError: more blocks are asked for than there are.
    """
    model.requires_grad_(False)
    blocks = decoder_blocks(model) if spec.last_n_layers else ()
    if spec.last_n_layers > len(blocks):
        raise ModelError(f"adapter.last_n_layers is {spec.last_n_layers}, but this model has {len(blocks)} blocks")
    for block in blocks[len(blocks) - spec.last_n_layers :]:
        model.get_submodule(block.name).requires_grad_(True)
    if spec.embeddings:
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            if module is not None:
                module.requires_grad_(True)
    return model


def partial_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The trained parameters, on the CPU, under their names in the model; tied ones once."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def fit_to_base(base: PreTrainedModel, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights in the base's dtypes and on its devices.

    Raises:
        AdapterError: a tensor that the base does not have, of another shape, or quantized in the base.
    """
    parameters = dict(base.named_parameters())
    fitted = {}
    for name, tensor in weights.items():
        own = parameters.get(name)
        if own is None or own.shape != tensor.shape or not own.is_floating_point():
            found = "nothing" if own is None else f"{own.dtype} {tuple(own.shape)}"
            raise AdapterError(f"trained weight {name} {tuple(tensor.shape)} does not fit base: found {found} there")
        fitted[name] = tensor.to(own.device, own.dtype)
    return fitted


@contextlib.contextmanager
def swapped_in(base: PreTrainedModel, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Compute with other weights inside the block; exchanging references copies nothing."""
    parameters = dict(base.named_parameters())
    own = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in own.items():
            parameters[name].data = tensor
