"""How much is trained and how much memory a worker needs, computed without loading weights."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from didact.errors import ModelError
from didact.models.attach import attach_adapter
from didact.models.base import base_folder, compute_dtype
from didact.spec import FinetuneSpec

_GIB = 2**30
_ANY_LENGTH = 1000  # a schedule over the steps changes no count
_ADAM_BYTES = 4 + 4 + 4 + 4  # float32 weight, gradient, first and second moment
_ACTIVATIONS_PER_LAYER = 34  # bytes a token and hidden unit in half precision (Korthikanti et al., 2022, eq. 1)


@dataclass(frozen=True, slots=True)
class Footprint:
    """An estimate for one worker."""

    num_parameters: int
    num_trainable: int
    weights_gib: float
    training_state_gib: float
    """Trained weights in float32 with gradient and both Adam moments."""
    activations_gib: float
    """Hidden states kept for the backward pass, and the logits of supervised tokens."""

    @property
    def trainable_share(self) -> float:
        """Trained parameters / all parameters."""
        return self.num_trainable / self.num_parameters

    @property
    def total_gib(self) -> float:
        """The sum of the parts."""
        return self.weights_gib + self.training_state_gib + self.activations_gib


def estimate_footprint(spec: FinetuneSpec, tokens_per_micro_batch: int, supervised_share: float) -> Footprint:
    """Count parameters on the meta device and add what training keeps.

    Args:
        spec: the recipe.
        tokens_per_micro_batch: tokens of one forward pass.
        supervised_share: share of them that is learned (only those are projected onto the vocabulary).
    """
    folder = base_folder(spec.model)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.model.trust_remote_code)
    bare = _on_meta(config, spec.model.trust_remote_code)
    num_base = sum(parameter.numel() for parameter in bare.parameters())
    embedding = bare.get_input_embeddings().weight.numel()
    wrapped = _attached(bare, config, spec)
    trainable = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
    total = max(num_base, sum(parameter.numel() for parameter in wrapped.parameters()))
    bytes_per_value = torch.finfo(compute_dtype(spec.model)).bits // 8
    text = config.get_text_config()
    layers, hidden, vocabulary = text.num_hidden_layers, text.hidden_size, text.vocab_size
    kept = 1 / layers if spec.training.gradient_checkpointing else 1.0
    hidden_bytes = tokens_per_micro_batch * hidden * layers * _ACTIVATIONS_PER_LAYER * bytes_per_value / 2 * kept
    logit_bytes = tokens_per_micro_batch * supervised_share * vocabulary * (4 + 4 + bytes_per_value)
    return Footprint(
        num_parameters=total,
        num_trainable=trainable,
        weights_gib=_weight_bytes(spec, num_base, embedding, bytes_per_value) / _GIB,
        training_state_gib=trainable * _ADAM_BYTES / _GIB,
        activations_gib=(hidden_bytes + logit_bytes) / _GIB,
    )


def _on_meta(config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        model.tie_weights()
    return model.requires_grad_(False)


def _attached(bare: PreTrainedModel, config: PretrainedConfig, spec: FinetuneSpec) -> torch.nn.Module:
    """The base with its adapter, on the meta device."""
    num_steps = spec.training.steps or _ANY_LENGTH
    try:
        with torch.device("meta"):
            return attach_adapter(bare, spec.adapter, seed=0, base_name=spec.model.base, num_steps=num_steps)
    except ModelError:
        # Some methods look at values of their own when they are made: those are made for real, layer by layer, and
        # moved to the meta device by PEFT. A method that does not fit fails here again, with its own reason.
        fresh = _on_meta(config, spec.model.trust_remote_code)
        return attach_adapter(fresh, spec.adapter, seed=0, base_name=spec.model.base, num_steps=num_steps)


def _weight_bytes(spec: FinetuneSpec, num_base: int, embedding: int, bytes_per_value: int) -> float:
    if spec.model.quantization is None:
        return num_base * bytes_per_value
    if spec.model.quantization.bits == 8:
        per_weight = 1.0
    else:  # one scale per 64 weights: 32 bits, or about 8 when the scales are quantized too
        per_weight = 0.5 + (0.127 if spec.model.quantization.double else 0.5) / 8
    return embedding * bytes_per_value + (num_base - embedding) * per_weight
