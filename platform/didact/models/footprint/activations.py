"""What autograd keeps for the backward pass: the model's own forward pass on tensors without data.

One and two layers are run; every further layer keeps what the second one did. So any family, method and attention is
counted as it is, in a fraction of a second for 70 billion parameters too.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.models.base import base_of
from didact.models.packing.packed_attention import use_packed_attention

_COUNTED = "didact_counted"
"""Name of an attention that is only counted."""


@dataclass(frozen=True, slots=True)
class Load:
    """One forward pass of one worker."""

    tokens: int
    """Tokens of all its samples."""
    sample_tokens: int | None = None
    """Tokens of one sample; None: there is one."""
    supervised_share: float = 1.0
    """Share of them that is learned."""
    recompute: bool = False
    """Activations are recomputed in the backward pass, block by block."""
    packed: bool = True
    """Samples share a row; only learned positions are then projected onto the vocabulary."""
    accumulates: bool = False
    """Passes of the same step came before it."""
    on_cpu: bool = True
    """Where it runs decides which attention a packed row gets."""

    @property
    def rows(self) -> tuple[int, int]:
        """Samples and their length."""
        length = min(self.sample_tokens or self.tokens, self.tokens)
        return max(1, round(self.tokens / length)), length

    @property
    def projected_tokens(self) -> int:
        """Positions that get logits."""
        count, length = self.rows
        return count * max(1, round(length * self.supervised_share)) if self.packed else count * length


@dataclass(frozen=True, slots=True)
class Activations:
    """Bytes kept for the backward pass, without logits."""

    outside_layers: float
    per_layer: float


def measure_activations(
    config: PreTrainedConfig,
    attached: Callable[[PreTrainedConfig], torch.nn.Module],
    load: Load,
    compute: torch.dtype,
    *,
    keeps_inputs: bool = False,
) -> Activations:
    """Count what the forward pass of a training step keeps.

    Args:
        config: the base's.
        attached: makes a model of a configuration, with its method, on the meta device or small enough to be made,
            each weight in the dtype it is held in.
        load: the forward pass.
        compute: dtype of the matrix products.
        keeps_inputs: layers hold on to what enters them, as 8-bit ones do.
    """
    one, two = (_kept(attached(_shortened(config, layers)), load, compute, keeps_inputs) for layers in (1, 2))
    per_layer = max(0, two - one)
    return Activations(max(0, one - per_layer), per_layer)


def _shortened(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    short = copy.deepcopy(config)
    text = short.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types[:layers])
    return short


def _kept(model: torch.nn.Module, load: Load, compute: torch.dtype, keeps_inputs: bool) -> int:
    """Bytes that the forward pass up to the hidden states leaves for the backward pass, weights excluded."""
    base = base_of(model)
    kept: dict[int, torch.UntypedStorage] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        base.set_output_embeddings(torch.nn.Identity())
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        def note_input(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            keep(inputs[0])

        for layer in model.modules() if keeps_inputs else ():
            if isinstance(layer, torch.nn.Linear | Conv1D) and not layer.weight.requires_grad:
                layer.register_forward_pre_hook(note_input)
        _train_without_chance(model)
        autocast = torch.autocast("cpu", dtype=compute, enabled=compute != torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
            hidden = model(**_inputs(base, load), use_cache=False).logits
    del hidden
    return sum(storage.nbytes() for storage in kept.values())


def _inputs(base: PreTrainedModel, load: Load) -> dict[str, torch.Tensor]:
    """One packed row where the platform's own attention takes it, else a row a sample."""
    count, length = load.rows
    where = torch.device("cpu" if load.on_cpu else "cuda")
    if load.packed and use_packed_attention(base, length, where):
        if not load.on_cpu:
            AttentionInterface.register(_COUNTED, _keeps_like_flash)
            AttentionMaskInterface.register(_COUNTED, lambda *_args, **_kwargs: None)
            base.set_attn_implementation(_COUNTED)
        ids = torch.zeros(1, count * length, dtype=torch.long)
        return {"input_ids": ids, "position_ids": torch.arange(length).repeat(count)[None]}
    return {"input_ids": torch.zeros(count, length, dtype=torch.long)}


class _Flash(torch.autograd.Function):
    """Keeps what flash attention keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        output = query.new_empty(batch, length, heads, value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(heads, length, dtype=torch.float32))
        return output


def _keeps_like_flash(
    _module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_mask: Any, **_kwargs: Any
) -> tuple[torch.Tensor, None]:
    return _Flash.apply(query, key, value), None


def _train_without_chance(model: torch.nn.Module) -> None:
    """Training mode, but layers that are left out at random stay: that would be decided by a value."""
    model.train()
    for module in model.modules():
        if hasattr(module, "module_dropout"):
            module.training = False


def _make_fake(model: torch.nn.Module) -> None:
    """Replace weights by ones without data."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in made:
                empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                made[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
            setattr(module, name, made[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
