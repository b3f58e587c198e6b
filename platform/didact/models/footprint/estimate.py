"""Memory and arithmetic of one worker: weights, training state, activations, logits."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, PreTrainedConfig

from didact.models.base import base_folder, compute_dtype
from didact.models.footprint.activations import Load, measure_activations
from didact.models.footprint.counting import Subject
from didact.models.footprint.sharding import Sharding
from didact.spec import FinetuneSpec, MethodSpec, ModelSpec

_GIB = 2**30
_FLOAT = 4
_CPU_OVERHEAD = 0.10  # GiB: buffers of matrix products, allocator
_GPU_OVERHEAD = 1.0  # GiB: context, kernels, communication buffers
_GPU_FRAGMENTATION = 0.06


@dataclass(frozen=True, slots=True)
class Footprint:
    """An estimate for one worker, in GiB on the device that computes."""

    num_parameters: int
    num_trainable: int
    weights_gib: float
    """The base as it is held, and the adapter."""
    gradients_gib: float
    optimizer_gib: float
    """Both moments of AdamW; with sharded training also the float32 weights they belong to."""
    activations_gib: float
    """Kept for the backward pass, with what the largest layer needs for a moment."""
    logits_gib: float
    """Of supervised positions: in the base's dtype, in float32, and their gradient."""
    overhead_gib: float
    flops: float
    """Arithmetic of one forward and backward pass over the load."""

    @property
    def trainable_share(self) -> float:
        """Trained parameters / all parameters."""
        return self.num_trainable / self.num_parameters

    @property
    def training_state_gib(self) -> float:
        """Gradients and optimizer."""
        return self.gradients_gib + self.optimizer_gib

    @property
    def total_gib(self) -> float:
        """The sum of the parts."""
        return self.weights_gib + self.training_state_gib + self.activations_gib + self.logits_gib + self.overhead_gib

    def seconds(self, flops_per_second: float) -> float:
        """Time of one forward and backward pass on a device of that speed."""
        return self.flops / flops_per_second


@dataclass(frozen=True, slots=True)
class Demand:
    """What one worker holds when nothing is cut, in bytes."""

    num_parameters: int
    num_trainable: int
    weights: float
    block: float
    """One decoder block in the dtype it computes in."""
    activations: float
    logits: float
    on_cpu: bool
    flops: float

    def footprint(self, sharding: Sharding) -> Footprint:
        """The part of one worker."""
        state = self.num_trainable * _FLOAT
        gathered = 2 * self.block if sharding.weights > 1 else 0.0  # one block whole, the next one on its way
        sizes = {
            "weights_gib": 0.0 if sharding.weights_elsewhere else self.weights / sharding.weights,
            "gradients_gib": state / sharding.gradients,
            "optimizer_gib": 0.0 if sharding.offloaded else 2 * state / sharding.optimizer,
            "activations_gib": self.activations + gathered,
            "logits_gib": self.logits,
        }
        parts = {name: size / _GIB for name, size in sizes.items()}
        overhead = _CPU_OVERHEAD if self.on_cpu else _GPU_OVERHEAD + _GPU_FRAGMENTATION * sum(parts.values())
        return Footprint(self.num_parameters, self.num_trainable, overhead_gib=overhead, flops=self.flops, **parts)


def estimate_footprint(
    spec: FinetuneSpec,
    tokens_per_micro_batch: int,
    supervised_share: float,
    *,
    sample_tokens: int | None = None,
    sharding: Sharding | None = None,
    on_cpu: bool = True,
) -> Footprint:
    """The footprint of a recipe.

    Args:
        spec: the recipe.
        tokens_per_micro_batch: tokens of one forward pass.
        supervised_share: share of them that is learned.
        sample_tokens: mean length of a sample; None: the pass is one sample.
        sharding: default: every worker holds everything.
        on_cpu: where the workers compute.
    """
    folder = base_folder(spec.model)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.model.trust_remote_code)
    load = Load(tokens_per_micro_batch, sample_tokens, supervised_share, spec.training.gradient_checkpointing, on_cpu)
    return footprint_of(config, spec.model, spec.adapter, load, sharding or Sharding(), spec.training.steps)


def footprint_of(
    config: PreTrainedConfig,
    model: ModelSpec,
    adapter: MethodSpec,
    load: Load,
    sharding: Sharding,
    num_steps: int | None = None,
) -> Footprint:
    """The footprint of any configuration and method; counted on the meta device.

    Args:
        config: of the base.
        model: how it is held.
        adapter: the method.
        load: one forward pass.
        sharding: what a worker holds.
        num_steps: of the run, for methods with a schedule.
    """
    return demand_of(config, model, adapter, load, num_steps).footprint(sharding)


def demand_of(
    config: PreTrainedConfig, model: ModelSpec, adapter: MethodSpec, load: Load, num_steps: int | None = None
) -> Demand:
    """What a configuration and method need before anything is cut; arguments as of `footprint_of`."""
    subject = Subject(model, adapter, num_steps)
    bare = subject.bare(config)
    sizes = [parameter.numel() for parameter in bare.parameters()]
    embedding = bare.get_input_embeddings().weight.numel()
    wrapped = list(subject.attached(config).parameters())
    base, trainable = sum(sizes), sum(each.numel() for each in wrapped if each.requires_grad)
    added = max(0, sum(each.numel() for each in wrapped) - base)
    width = torch.finfo(compute_dtype(model)).bits // 8
    logits, activations = _kept(subject, config, load)
    if model.quantization is not None:  # the layer that computes is unpacked
        activations += width * max(size for size in sizes if size != embedding)
    frozen = _weight_bytes(model, base, embedding, _FLOAT if adapter.trains_base else width)
    return Demand(
        num_parameters=base + added,
        num_trainable=trainable,
        weights=frozen + added * _FLOAT,
        block=width * (base - embedding) / config.get_text_config().num_hidden_layers,
        activations=activations,
        logits=logits,
        on_cpu=load.on_cpu,
        flops=_flops(config, base - embedding, adapter, load),
    )


def _kept(subject: Subject, config: PreTrainedConfig, load: Load) -> tuple[float, float]:
    """Bytes of logits and of everything else at the moment when most is held."""
    dtype = compute_dtype(subject.model)
    kept = measure_activations(config, lambda short: subject.attached(short, recompute=load.recompute), load, dtype)
    activations = kept.outside_layers + config.get_text_config().num_hidden_layers * kept.per_layer
    if load.recompute:  # one block at a time holds all of its own
        activations += measure_activations(config, subject.attached, load, dtype).per_layer
    width = torch.finfo(dtype).bits // 8
    return kept.logits * (2 + width / _FLOAT), activations


def _flops(config: PreTrainedConfig, weights: int, adapter: MethodSpec, load: Load) -> float:
    """Two operations a weight and token forward, two for gradients of inputs, two for gradients of trained weights."""
    text = config.get_text_config()
    per_weight = 2 + 2 + (2 if adapter.trains_base else 0) + (2 if load.recompute else 0)
    attention = text.num_hidden_layers * text.hidden_size * load.rows[1] * load.tokens  # causal: half of 4
    return per_weight * (weights * load.tokens + attention)


def _weight_bytes(model: ModelSpec, base: int, embedding: int, bytes_per_value: int) -> float:
    if model.quantization is None:
        return base * bytes_per_value
    scale_bits = 0.127 if model.quantization.double else 0.5  # a scale per 64 weights, quantized itself or not
    per_weight = 1.0 if model.quantization.bits == 8 else 0.5 + scale_bits / 8
    return embedding * bytes_per_value + (base - embedding) * per_weight
