"""What autograd keeps for the backward pass: the model's own forward pass on tensors without data.

One and two layers are run; every further layer keeps what the second one did. So any family, method and attention is
counted as it is, in a fraction of a second for 70 billion parameters too.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig

from didact.models.packed_attention import SHORT


@dataclass(frozen=True, slots=True)
class Load:
    """One forward pass of one worker."""

    tokens: int
    """Tokens of all its samples."""
    sample_tokens: int | None = None
    """Tokens of one sample; None: there is one."""
    supervised_share: float = 1.0
    """Share of them that is learned; only those are projected onto the vocabulary."""
    recompute: bool = False
    """Activations are recomputed in the backward pass, block by block."""
    on_cpu: bool = True
    """On a processor, short samples of a packed row are attended to with their scores kept."""

    @property
    def rows(self) -> tuple[int, int]:
        """Samples and their length."""
        length = min(self.sample_tokens or self.tokens, self.tokens)
        return max(1, round(self.tokens / length)), length

    @property
    def supervised_tokens(self) -> int:
        """Positions that get logits."""
        count, length = self.rows
        return count * max(1, round(length * self.supervised_share))


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes, without logits."""

    outside_layers: float
    per_layer: float
    logits: float
    """Kept for the backward pass of the loss."""


def measure_activations(
    config: PreTrainedConfig,
    attached: Callable[[PreTrainedConfig], torch.nn.Module],
    load: Load,
    dtype: torch.dtype,
) -> Activations:
    """Count what a training step keeps.

    Args:
        config: the base's.
        attached: makes a model of a configuration, with its method, on the meta device.
        load: the forward pass.
        dtype: the base computes in it.
    """
    one, two = (_kept(attached(_shortened(config, layers)), load, dtype) for layers in (1, 2))
    logits = load.supervised_tokens * config.get_text_config().vocab_size * 4
    per_layer = max(0, two - one)
    return Activations(max(0.0, one - per_layer - logits), per_layer, logits)


def _shortened(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    short = copy.deepcopy(config)
    text = short.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types[:layers])
    return short


def _kept(model: torch.nn.Module, load: Load, dtype: torch.dtype) -> int:
    """Bytes that the forward pass and the loss leave for the backward pass, weights excluded."""
    count, length = load.rows
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if load.on_cpu and length <= SHORT:
        base.set_attn_implementation("eager")
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model, dtype)
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        model.train()
        ids = torch.zeros(count, length, dtype=torch.long)
        autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            logits = model(input_ids=ids, use_cache=False).logits[:, : load.supervised_tokens // count]
            targets = torch.zeros(load.supervised_tokens, dtype=torch.long)
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets)
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def _make_fake(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Replace weights by ones without data: trained ones in float32, frozen ones in the base's dtype."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                kind = torch.float32 if parameter.requires_grad or not parameter.is_floating_point() else dtype
                empty = torch.empty(parameter.shape, dtype=kind)
                made[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
