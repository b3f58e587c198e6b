"""A base and its method on the meta device, where parameters have shapes and no values."""

import copy
from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.devices import this_machine
from didact.errors import ModelError
from didact.models.adapter.attach import attach_adapter
from didact.models.base.description import base_description
from didact.models.base.load import compute_dtype
from didact.models.dropout import turn_off_dropout
from didact.models.methods import peft_config
from didact.spec import MethodSpec, ModelSpec, PeftSpec, QuantizationSpec

_ANY_LENGTH = 1000  # a schedule over the steps changes no count


@dataclass(frozen=True, slots=True)
class Subject:
    """What is trained, on which base."""

    model: ModelSpec
    adapter: MethodSpec
    num_steps: int | None = None
    on_cpu: bool = True
    base_dropout: bool = False
    """The base's own dropout stays on."""

    @property
    def compute(self) -> torch.dtype:
        """Of matrix products; a GPU that is not here is taken for one that computes in bfloat16."""
        if self.on_cpu:
            return compute_dtype(self.model)
        if self.model.dtype == "auto" and not this_machine().gpus:
            return torch.bfloat16
        return compute_dtype(self.model, "cuda")

    def bare(self, config: PreTrainedConfig) -> PreTrainedModel:
        """The base alone, frozen; each weight in the dtype it is held in, packed ones in that they are unpacked to."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), trust_remote_code=self.model.trust_remote_code
            )
            model.tie_weights()
        if not self.base_dropout:
            turn_off_dropout(model)
        model.to(torch.float32 if self.adapter.trains_base else self.compute)
        return model.requires_grad_(False)

    def attached(self, config: PreTrainedConfig, *, recompute: bool = False) -> torch.nn.Module:
        """The base with its method."""
        try:
            with torch.device("meta"):
                return self._attach(config, recompute)
        except ModelError:
            # Some methods look at values of their own when they are made: those are made for real, layer by layer, and
            # moved to the meta device by PEFT. A method that does not fit fails here again, with its own reason.
            return self._attach(config, recompute)

    def _attach(self, config: PreTrainedConfig, recompute: bool) -> torch.nn.Module:
        return attach_adapter(
            self.bare(config),
            self.adapter,
            seed=0,
            base_name=self.model.base,
            num_steps=self.num_steps or _ANY_LENGTH,
            gradient_checkpointing=recompute,
        )


def check_method(model: ModelSpec, adapter: MethodSpec) -> None:
    """Nothing, where a method fits a base: the parts of it that the method names are there, its options are PEFT's.

    Asked only of methods that name something; the others are aimed at what a base has.

    Raises:
        ModelError: what does not fit, with the field.
    """
    targets = {getattr(adapter, field, "auto") for field in ("target_modules", "feedforward_modules")}
    if isinstance(adapter, PeftSpec) or not targets <= {"auto", "all-linear"}:
        folder = base_description(model)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
        peft_config(adapter, Subject(model, adapter).bare(config), num_steps=_ANY_LENGTH)


def packed_weights(model: PreTrainedModel) -> set[torch.nn.Parameter]:
    """The weights that quantization packs: those of linear layers, without the output layer."""
    head = model.get_output_embeddings()
    layers = (each for each in model.modules() if isinstance(each, torch.nn.Linear | Conv1D) and each is not head)
    return {each.weight for each in layers}


def held_bytes(model: ModelSpec, bare: PreTrainedModel) -> dict[torch.nn.Parameter, float]:
    """How many bytes each weight of a base takes as the model's spec has it held."""
    held: dict[torch.nn.Parameter, float] = {each: each.numel() * each.element_size() for each in bare.parameters()}
    if model.quantization is not None:
        held |= {each: each.numel() * _packed_bytes(model.quantization) for each in packed_weights(bare)}
    return held


def _packed_bytes(spec: QuantizationSpec) -> float:
    if spec.bits == 8:
        return 1.0
    scale_bits = 0.127 if spec.double else 0.5  # a scale per 64 weights, quantized itself or not
    return 0.5 + scale_bits / 8
