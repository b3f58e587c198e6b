"""Base + adapter as plain weights, tensor by tensor: PEFT merges one layer at a time on a hollow model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from transformers import PreTrainedModel

from didact.adapter_folder import WEIGHTS
from didact.errors import AdapterError, ModelError
from didact.models.adapter.put_weights import put_weights, read_config
from didact.models.export.held import as_held, quantized_weights
from didact.models.export.hollow import filled
from didact.models.weight_files import read_shards
from didact.spec import QuantizationSpec

_SLOT = "default"
_Layer: TypeAlias = BaseTunerLayer | AuxiliaryTrainingWrapper


class MergedWeights:
    """The merged tensors of a base and an adapter, in the order of the base's files.

    Args:
        model: the hollow base; it is wrapped by the adapter.
        adapter: a verified adapter folder.
        partial: the adapter replaces weights of the base instead of adding to them.
        quantization: merge into the weights as this quantization holds them; None for those of the files.

    Raises:
        AdapterError: a method without weights to merge, or one that changes the base's own weights.
    """

    def __init__(
        self, model: PreTrainedModel, adapter: Path, *, partial: bool, quantization: QuantizationSpec | None
    ) -> None:
        self.untied = False
        """Whether tied weights have become different ones; known after the iteration."""
        self._adapter = adapter
        self._quantization = quantization
        self._quantized = quantized_weights(model, quantization)
        self._prefix = f"{model.base_model_prefix}."
        self._shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self._tied = dict(model.all_tied_weights_keys) if model.config.tie_word_embeddings else {}
        self._replaced = load_file(adapter / WEIGHTS) if partial else {}
        self._layers = {} if partial else _layers(_wrapped(model, adapter))
        self._layer_of = {
            f"{name}.{inner}": name for name, layer in self._layers.items() for inner in _weights_of(layer)
        }
        self._waiting: dict[str, dict[str, torch.Tensor]] = {name: {} for name in self._layers}

    def of(self, folder: Path) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
        """Each merged tensor under its name in the model, in float32 where it was touched, with the base's dtype.

        Raises:
            ModelError: the base's files lack a tensor that the adapter belongs to.
            AdapterError: PEFT cannot merge this method.
        """
        for shard in read_shards(folder):
            for found, tensor in shard:
                name = self._name_of(found)
                if name in self._tied:  # its source is what a tied model computes with
                    continue
                yield from self._merged(name, tensor)
        missing = sorted(self._replaced) + sorted(self._waiting)
        if missing:
            raise ModelError(
                f"the weight files in {folder} have no tensors for {missing[0]!r}, which the adapter {self._adapter} "
                "changes: transformers builds it from others while loading. Serve the adapter live"
            )

    def _merged(self, name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor, torch.dtype]]:
        partners = [name, *(target for target, source in self._tied.items() if source == name)]
        own = self._held(name, tensor)
        if all(each not in self._layer_of for each in partners):
            yield name, self._replaced.pop(name, own), tensor.dtype
            return
        results: dict[str, torch.Tensor] = {}
        for each in partners:
            results |= self._folded(each, own)
        if len(partners) > 1 and all(torch.equal(results[name], results[each]) for each in partners):
            results = {name: results[name]}
        self.untied |= len(partners) > 1 and len(results) > 1
        for each, value in results.items():
            yield each, value, tensor.dtype

    def _folded(self, name: str, own: torch.Tensor) -> dict[str, torch.Tensor]:
        """What became of the layer of this tensor, once all its tensors are there."""
        layer_name = self._layer_of.get(name)
        if layer_name is None:
            return {name: own}
        layer, held = self._layers[layer_name], self._waiting[layer_name]
        held[name.removeprefix(f"{layer_name}.")] = own.to(torch.float32, copy=True)
        if len(held) < len(_weights_of(layer)):
            return {}
        self._waiting.pop(layer_name)
        with filled(_base_of(layer), held):
            return {f"{layer_name}.{inner}": value for inner, value in self._fold(layer).items()}

    def _fold(self, layer: _Layer) -> dict[str, torch.Tensor]:
        try:
            if isinstance(layer, AuxiliaryTrainingWrapper):
                merged = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            else:
                layer.merge(safe_merge=True)
                merged = layer.get_base_layer()
        except (ValueError, RuntimeError) as error:
            raise AdapterError(f"adapter {self._adapter} cannot be merged: {error}; serve it as an adapter") from error
        return {name: tensor.detach() for name, tensor in merged.state_dict().items()}

    def _held(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if self._quantization is None or name not in self._quantized:
            return tensor
        return as_held(tensor.float(), self._quantization, self._quantized[name])

    def _name_of(self, found: str) -> str:
        """A tensor's name in the model; files may have been written from the model without its output layer."""
        for name in (found, self._prefix + found, found.removeprefix(self._prefix)):
            if name in self._shapes:
                return name
        return found


def _wrapped(model: PreTrainedModel, adapter: Path) -> PeftModel:
    try:
        config = read_config(adapter)
        wrapped = None if config.is_prompt_learning else PeftModel(model, config, adapter_name=_SLOT)
        if wrapped is not None:
            put_weights(wrapped, _SLOT, load_file(adapter / WEIGHTS))
    except (ValueError, RuntimeError) as error:
        raise AdapterError(f"adapter {adapter} cannot be merged: {error}; serve it as an adapter") from error
    if wrapped is None:
        raise AdapterError(f"adapter {adapter} has no weights to merge, only positions before the text; serve it live")
    return wrapped.eval()


def _layers(wrapped: PeftModel) -> dict[str, _Layer]:
    """The outermost wrappers by the name of the module they stand for."""
    layers: dict[str, _Layer] = {}
    for name, module in wrapped.base_model.model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in layers)
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and not inside:
            layers[name] = module
    return layers


def _base_of(layer: _Layer) -> torch.nn.Module:
    return layer.original_module if isinstance(layer, AuxiliaryTrainingWrapper) else layer.get_base_layer()


def _weights_of(layer: _Layer) -> list[str]:
    return list(_base_of(layer).state_dict())
