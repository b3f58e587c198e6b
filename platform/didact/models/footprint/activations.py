"""What autograd keeps for the backward pass: the model's own forward pass on tensors without data.

Where all layers are alike, one and two of them are run, and every further one keeps what the second one did: a fraction
of a second for 70 billion parameters too. Where they are not (experts in some layers, states beside attention, adapters
on a few layers only), all of them are run. So any family, method and attention is counted as it is.
"""

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.base import base_of
from didact.models.packing.gpu_attention import takes_facts
from didact.models.packing.packed_attention import use_packed_attention

_LOG = get_logger(__name__)
_COUNTED = "didact_counted"
"""Name of an attention that is only counted."""
_FEW = 2
"""Layers that are run where all are alike."""
_GROUPED_PRODUCTS = tuple(
    getattr(module, name)
    for module, name in ((torch.nn.functional, "grouped_mm"), (torch, "_grouped_mm"))
    if hasattr(module, name)
)
# What a forward pass raises that reads values: how many rows an expert gets, how long a list is.
_NOT_WITHOUT_VALUES = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)


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
    base_dropout: bool = False
    """The base's own dropout is on."""

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

    total: float
    largest_layer: float
    """Of them, those of the layer that keeps most."""
    packed: bool
    """Samples shared a row, apart from each other."""
    rough: bool = False
    """Worked out from the sizes of the layers, since the forward pass cannot be run without values."""


def measure_activations(
    config: PreTrainedConfig,
    attached: Callable[[PreTrainedConfig], torch.nn.Module],
    load: Load,
    compute: torch.dtype,
    *,
    keeps_inputs: bool = False,
    alike: bool = True,
    packed: bool | None = None,
) -> Activations:
    """Count what the forward pass of a training step keeps.

    Args:
        config: the base's.
        attached: makes a model of a configuration, with its method, on the meta device or small enough to be made,
            each weight in the dtype it is held in.
        load: the forward pass.
        compute: dtype of the matrix products.
        keeps_inputs: layers hold on to what enters them, as 8-bit ones do.
        alike: whether all layers are, so that two are enough; see `layers_alike`.
        packed: whether samples share a row, as was found for this base; None: it is asked, which takes a forward pass.
    """
    layers = config.get_text_config().num_hidden_layers
    if alike and layers > _FEW:
        with suppress(ModelError):  # a method may name layers that a shortened model does not have
            one, two = (attached(_shortened(config, number)) for number in (1, _FEW))
            first = _kept(one, load, compute, keeps_inputs, packed)
            second = _kept(two, load, compute, keeps_inputs, first.packed)
            per_layer = max(0.0, second.total - first.total)
            return Activations(
                max(0.0, first.total - per_layer) + layers * per_layer, per_layer, first.packed, first.rough
            )
    return _kept(attached(config), load, compute, keeps_inputs, packed)


def layers_alike(model: torch.nn.Module) -> bool:
    """Whether the layers of a model, with the adapters in them, have the same modules and weights."""
    layers = _layers(base_of(model))
    kinds = {
        (
            tuple((name, type(module)) for name, module in layer.named_modules()),
            tuple((name, each.shape, each.requires_grad) for name, each in layer.named_parameters()),
        )
        for layer in layers
    }
    return len(kinds) == 1


def _layers(base: PreTrainedModel) -> list[torch.nn.Module]:
    """The layers as a list, found by its length; empty where there is none."""
    wanted = base.config.get_text_config().num_hidden_layers
    lists = (each for each in base.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == wanted)
    return list(max(lists, key=lambda each: sum(one.numel() for one in each.parameters()), default=()))


def _shortened(config: PreTrainedConfig, layers: int) -> PreTrainedConfig:
    short = copy.deepcopy(config)
    text = short.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        with suppress(AttributeError):  # of some families it follows from the number
            text.layer_types = list(text.layer_types[:layers])
    return short


def _kept(
    model: torch.nn.Module, load: Load, compute: torch.dtype, keeps_inputs: bool, packed: bool | None
) -> Activations:
    """What the forward pass up to the hidden states leaves for the backward pass, weights excluded."""
    base = base_of(model)
    kept: dict[int, int] = {}
    alive: list[torch.UntypedStorage] = []
    sizes: list[int] = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        _make_fake(model)
        base.get_output_embeddings().forward = lambda states: states
        own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own and storage._cdata not in kept:
                kept[storage._cdata] = storage.nbytes()
                alive.append(storage)
            return tensor

        def note_input(_layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            keep(inputs[0])

        for layer in model.modules() if keeps_inputs else ():
            if isinstance(layer, torch.nn.Linear | Conv1D) and not layer.weight.requires_grad:
                layer.register_forward_pre_hook(note_input)
        for layer in _layers(base):
            layer.register_forward_hook(lambda *_: sizes.append(sum(kept.values())))
        _train_without_chance(model)
        autocast = torch.autocast("cpu", dtype=compute, enabled=compute != torch.float32)
        try:
            with _ExpertsCounted():
                packed = _shares_rows(base, load, packed)
                inputs = _inputs(base, load, packed)
                with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
                    hidden = model(**inputs, use_cache=False).logits
        except _NOT_WITHOUT_VALUES as error:
            _LOG.info("activations of %s are worked out from its sizes: %s", type(base).__name__, error)
            return _from_sizes(base, load, compute, bool(packed))
    del hidden
    before = [0, *sizes[:-1]]
    return Activations(
        sum(kept.values()), max((end - start for start, end in zip(before, sizes, strict=True)), default=0), packed
    )


def _from_sizes(base: PreTrainedModel, load: Load, compute: torch.dtype, packed: bool) -> Activations:
    """What enters and leaves every matrix, kept for each token that it computes."""
    text = base.config.get_text_config()
    chosen = getattr(text, "num_experts_per_tok", None) or 1
    matrices = [each.shape for each in base.parameters() if each.dim() > 1]
    widths = sum(sum(shape[-2:]) * (chosen if len(shape) > 2 else 1) for shape in matrices)
    total = float(load.tokens * widths * torch.finfo(compute).bits // 8)
    return Activations(total, total / text.num_hidden_layers, packed, rough=True)


def _shares_rows(base: PreTrainedModel, load: Load, known: bool | None) -> bool:
    """Switch a base to the platform's own attention over packed rows, where that takes it."""
    where = torch.device("cpu" if load.on_cpu else "cuda")
    return load.packed and use_packed_attention(base, load.rows[1], where, apart=known)


def _inputs(base: PreTrainedModel, load: Load, packed: bool) -> dict[str, Any]:
    """One packed row, else a row a sample."""
    count, length = load.rows
    if packed:
        if not load.on_cpu:
            AttentionInterface.register(_COUNTED, _keeps_like_flash)
            AttentionMaskInterface.register(_COUNTED, lambda *_args, **_kwargs: None)
            base.set_attn_implementation(_COUNTED)
        ids = torch.zeros(1, count * length, dtype=torch.long)
        row = {"input_ids": ids, "position_ids": torch.arange(length).repeat(count)[None]}
        # Where samples end is read from the positions otherwise, which have no values here.
        return row | ({"sample_bounds": list(range(0, count * length + 1, length))} if takes_facts(base) else {})
    return {"input_ids": torch.zeros(count, length, dtype=torch.long)}


class _Grouped(torch.autograd.Function):
    """Keeps what a product of each row with its expert's weights keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weights, *((rows,) if weights.requires_grad else ()))
        return rows.new_empty(rows.shape[0], weights.shape[-1])


class _ExpertsCounted(TorchFunctionMode):
    """Products of experts as `_Grouped`: PyTorch's own have no shapes without values but in bfloat16."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _GROUPED_PRODUCTS:
            return _Grouped.apply(*args[:2])
        return func(*args, **(kwargs or {}))


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
