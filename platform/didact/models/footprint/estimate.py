"""Memory and arithmetic of one worker: weights, training state, activations, logits."""

from dataclasses import dataclass, replace
from functools import partial

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from didact.models.base.description import base_description
from didact.models.base.load import base_of
from didact.models.base.quantize import stacked_weights, unpacked_words
from didact.models.dropout import own_dropout
from didact.models.footprint.activations import Load, layers_alike, measure_activations
from didact.models.footprint.counting import Subject, held_bytes, packed_weights
from didact.models.footprint.footprint import Footprint
from didact.models.footprint.logits import in_pieces, logit_bytes
from didact.models.footprint.sharding import StateSharding
from didact.models.methods import left_out
from didact.spec import FinetuneSpec, MethodSpec, ModelSpec

_GIB = 2**30
_FLOAT = 4
_CPU_OVERHEAD = 0.10  # GiB: buffers of matrix products
_GPU_OVERHEAD = 1.0  # GiB: context, kernels, communication buffers
_GPU_FRAGMENTATION = 0.06
_GPU_BACKWARD = 1 / 3
"""Gradients of the block in its backward pass, as a share of what it kept: a GPU's allocator gives each tensor's room
to the next one. Found on an H200 over the settings of `didact.gpu_proof.memory`."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one worker holds when nothing is cut, in bytes."""

    num_parameters: int
    num_trainable: int
    trains_base: bool
    base: float
    adapter: float
    block: float
    """One decoder block as it is gathered when the base is cut."""
    outside_blocks: float
    """Embeddings and output layer, which are gathered as one and stay."""
    activations: float
    logits: float
    on_cpu: bool
    accumulates: bool
    flops: float
    left_out: tuple[str, ...] = ()
    unpacked: str | None = None
    rough: bool = False
    base_dropout: float = 0.0

    def footprint(self, sharding: StateSharding) -> Footprint:
        """The part of one worker."""
        state = self.num_trainable * _FLOAT
        optimizer = (3 if sharding.copies else 2) * state / sharding.optimizer
        # One flat message holds all gradients once more, beside activations that are gone by then.
        message = state if sharding.num_workers > 1 and sharding.gradients == 1 and not sharding.copies else 0.0
        gradients = state / sharding.gradients
        if not (self.accumulates or message):
            gradients = max(0.0, gradients - self.activations - self.logits)
        sizes = {
            "weights_gib": self.base / sharding.base + self.adapter / sharding.adapter,
            "gradients_gib": gradients,
            "optimizer_gib": optimizer,
            "activations_gib": max(self.activations, message) + self._gathered(sharding),
            "logits_gib": self.logits,
        }
        if sharding.state_offloads:
            sizes["optimizer_gib"] = 0.0
        if sharding.base_offloads:
            sizes["weights_gib"] = 0.0 if sharding.copies else self.adapter
            sizes["gradients_gib"] *= 0.0 if sharding.state_offloads else 1.0
        parts = {name: size / _GIB for name, size in sizes.items()}
        overhead = _CPU_OVERHEAD if self.on_cpu else _GPU_OVERHEAD + _GPU_FRAGMENTATION * sum(parts.values())
        return Footprint(
            self.num_parameters,
            self.num_trainable,
            overhead_gib=overhead,
            flops=self.flops,
            left_out=self.left_out,
            unpacked=self.unpacked,
            rough=self.rough,
            base_dropout=self.base_dropout,
            **parts,
        )

    def _gathered(self, sharding: StateSharding) -> float:
        """Blocks that are whole for a moment: the one that computes and the next one on its way, with gradients."""
        if sharding.base == 1 and not sharding.base_offloads:
            return 0.0
        if sharding.keeps_blocks:
            return self.base
        return self.outside_blocks + (3 if self.trains_base else 2) * self.block


def estimate_footprint(
    spec: FinetuneSpec,
    tokens_per_micro_batch: int,
    supervised_share: float,
    *,
    sample_tokens: int | None = None,
    on_cpu: bool = True,
) -> Footprint:
    """The footprint of a recipe, cut as `training.sharding` says.

    Args:
        spec: the recipe.
        tokens_per_micro_batch: tokens of one forward pass.
        supervised_share: share of them that is learned.
        sample_tokens: mean length of a sample; None: the pass is one sample.
        on_cpu: where the workers compute.
    """
    folder = base_description(spec.model)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=spec.model.trust_remote_code)
    training = spec.training
    load = Load(
        tokens_per_micro_batch,
        sample_tokens,
        supervised_share,
        recompute=training.gradient_checkpointing,
        packed=spec.packing,
        accumulates=training.global_batch_size > training.micro_batch_size * spec.placement.min_workers,
        on_cpu=on_cpu,
        base_dropout=training.base_dropout,
    )
    sharding = StateSharding.of(
        training.sharding, spec.placement.min_workers, trains_base=spec.adapter.trains_base, on_cpu=on_cpu
    )
    return demand_of(config, spec.model, spec.adapter, load, training.steps).footprint(sharding)


def demand_of(
    config: PreTrainedConfig, model: ModelSpec, adapter: MethodSpec, load: Load, num_steps: int | None = None
) -> Demand:
    """What a configuration and method need before anything is cut; counted without loading weights.

    Args:
        config: of the base.
        model: how it is held.
        adapter: the method.
        load: one forward pass.
        num_steps: of the run, for methods with a schedule.
    """
    subject = Subject(model, adapter, num_steps, load.on_cpu, load.base_dropout)
    bare = subject.bare(config)
    held = held_bytes(model, bare)
    unpacked = 0
    if model.quantization is not None:  # the layer that computes
        unpacked = max(each.numel() * each.element_size() for each in packed_weights(bare))
    values = sum(parameter.numel() for parameter in held)
    embedding, head = bare.get_input_embeddings().weight, bare.get_output_embeddings().weight
    outside = sum(held[weight] for weight in {embedding, head})
    attached = subject.attached(config)
    wrapped = list(attached.parameters())
    kept, backward, rough = _activations(subject, config, load, layers_alike(attached))
    logits = logit_bytes(bare, subject, load)
    if not load.on_cpu and in_pieces(bare, subject, load):
        backward = max(0.0, backward - logits)  # which takes their room
    added = max(0, sum(each.numel() for each in wrapped) - values)
    computed = values - embedding.numel() - _resting(config, bare)
    return Demand(
        num_parameters=values + added,
        num_trainable=sum(each.numel() for each in wrapped if each.requires_grad),
        trains_base=adapter.trains_base,
        base=sum(held.values()),
        adapter=added * _FLOAT,
        outside_blocks=outside,
        block=(sum(held.values()) - outside) / config.get_text_config().num_hidden_layers,
        activations=kept + backward + unpacked,
        logits=logits,
        on_cpu=load.on_cpu,
        accumulates=load.accumulates,
        flops=_flops(config, computed, adapter, load),
        left_out=left_out(base_of(attached), adapter),
        unpacked=unpacked_words(bare) if model.quantization else None,
        rough=rough,
        base_dropout=own_dropout(replace(subject, base_dropout=True).bare(config)),
    )


def _activations(subject: Subject, config: PreTrainedConfig, load: Load, alike: bool) -> tuple[float, float, bool]:
    """Bytes that are kept, those that the last block's backward pass needs beside them, and whether roughly."""
    measured = partial(
        measure_activations,
        load=load,
        compute=subject.compute,
        keeps_inputs=subject.model.quantization is not None and subject.model.quantization.bits == 8,
        alike=alike,
    )
    kept = measured(config, lambda base: subject.attached(base, recompute=load.recompute))
    block = measured(config, subject.attached, packed=kept.packed) if load.recompute else kept
    at_once = (1 if load.recompute else 0) + (1 if load.on_cpu else _GPU_BACKWARD)
    return kept.total, block.largest_layer * at_once, kept.rough


def _resting(config: PreTrainedConfig, bare: PreTrainedModel) -> float:
    """Weights of experts that the mean token does not choose."""
    chosen = getattr(config.get_text_config(), "num_experts_per_tok", None)
    experts = stacked_weights(bare).values() if chosen else ()
    return sum(each.numel() * max(0.0, 1 - chosen / each.shape[0]) for each in experts)


def _flops(config: PreTrainedConfig, weights: float, adapter: MethodSpec, load: Load) -> float:
    """Two operations a weight and token forward, two for gradients of inputs, two for gradients of trained weights."""
    text = config.get_text_config()
    per_weight = 2 + 2 + (2 if adapter.trains_base else 0) + (2 if load.recompute else 0)
    attention = text.num_hidden_layers * text.hidden_size * load.rows[1] * load.tokens  # causal: half of 4
    return per_weight * (weights * load.tokens + attention)
