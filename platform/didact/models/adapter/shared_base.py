"""One base and the LoRA adapters that are trained on it together.

Each adapter has PEFT's own layers, which stand in the base only where it computes alone (`alone`): to be measured and
saved. While all compute together (`slices`) the base is bare, its layers see the tokens of all adapters in one row, and
to each adapter's slice is added what that adapter says. So a base in few bits is unpacked once for all.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from peft.tuners.lora.bnb import Linear4bit
from torch.nn import functional
from transformers import PreTrainedModel

from didact.errors import ModelError
from didact.models.adapter.attach import attach_adapter
from didact.models.adapter.row_grouping import layers_by_rows
from didact.models.adapter.slice_operator import (
    LoraSlice,
    LoraSlices,
    add_slices,
    computed_dtype,
    factors_of,
    linear_with_slices,
)
from didact.models.methods.blocks import is_linear
from didact.spec import LoraSpec

_NAME = "default"  # of each adapter inside PEFT, as where it is alone


class OwnRandom:
    """The random numbers of one adapter: those that it would draw if it computed alone."""

    def __init__(self, device: torch.device, seed: int) -> None:
        """Begin as `torch.manual_seed(seed)` lets the generator of `device` begin."""
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    @property
    def state(self) -> torch.Tensor:
        """From where on it draws."""
        return self._generator.get_state()

    def keep(self, kept: torch.Tensor, dropout: float, again: torch.Tensor | None = None) -> None:
        """Write into `kept` what `torch.nn.Dropout` keeps of states of its shape and type: 1, else 0.

        Args:
            kept: contiguous.
            dropout: share that is dropped.
            again: a former `state`, to draw what was drawn from there; the next time is as if it had not been.
        """
        goes_on = self.state if again is not None else None
        if again is not None:
            self._generator.set_state(again)
        if self._device.type == "cpu":
            kept.bernoulli_(1 - dropout, generator=self._generator)
        else:
            kept.copy_(self._on_gpu(kept, dropout))
        if goes_on is not None:
            self._generator.set_state(goes_on)

    def _on_gpu(self, states: torch.Tensor, dropout: float) -> torch.Tensor:
        """The operator there takes no generator, and others draw other numbers."""
        default = torch.cuda.default_generators[self._device.index or 0]
        before = default.get_state()
        default.set_state(self.state)
        try:
            return functional.dropout(torch.ones_like(states), dropout).sign_()
        finally:
            self._generator.set_state(default.get_state())
            default.set_state(before)


@dataclass(frozen=True, slots=True)
class Slice:
    """The tokens of one adapter in a row."""

    adapter: str
    tokens: int
    random: OwnRandom


@dataclass(slots=True)
class _Attached:
    """An adapter's wrappers, which are not in the base."""

    model: PeftModel
    layers: dict[str, Linear | Linear4bit]
    """PEFT's layers by the names of the layers they wrap."""


@dataclass(slots=True)
class _Pass:
    """One forward pass of all."""

    parts: dict[str, list[tuple[int, int, Slice, Linear | Linear4bit]]] = field(default_factory=dict)
    """For each layer, the slices that have an adapter there: start, end, whose, with what."""
    tokens: int = 0
    apart: bool = False
    """Slice by slice, so that no number that is not finite comes to another adapter."""
    factors: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)
    """What layers with the same slices share."""
    drawn: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    """What (adapter, layer) had drawn before its dropout, for a pass that is computed again."""


class SharedBase:
    """Not thread-safe: one thread computes."""

    def __init__(self, base: PreTrainedModel, *, recomputes: bool = False) -> None:
        """
        Args:
            base: frozen and bare, its attention already that of packed rows.
            recomputes: activations are computed again in the backward pass.
        """
        self.base, self._recomputes = base, recomputes
        self._modules = dict(base.named_modules())
        self._attached: dict[str, _Attached] = {}
        self._changed: set[str] = set()
        self._pass: _Pass | None = None

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters on it."""
        return tuple(self._attached)

    def attach(
        self,
        name: str,
        spec: LoraSpec,
        *,
        seed: int,
        base_name: str,
        unquantized: Callable[[], PreTrainedModel] | None = None,
    ) -> None:
        """Give the base one more adapter, with the weights that `attach_adapter` would begin with.

        Raises:
            ModelError: as of `attach_adapter`; or a layer of the adapter cannot compute slices.
        """
        assert name not in self._attached, f"{name} is on the base"
        try:
            model = attach_adapter(self.base, spec, seed=seed, base_name=base_name, unquantized=unquantized)
            layers = {path: each for path, each in self.base.named_modules() if isinstance(each, LoraLayer)}
        finally:
            self._make_bare()
        head = self.base.get_output_embeddings()
        for path, each in layers.items():
            if reason := _unfit(each, by_rows=path in self._by_rows, is_head=self._modules.get(path) is head):
                raise ModelError(f"adapter.target_modules names {path}, where trials cannot be fused: {reason}")
        assert isinstance(model, PeftModel)
        self._attached[name] = _Attached(model, layers)
        for path in layers.keys() - self._changed:
            self._modules[path].forward = self._computed(path, self._modules[path])
            self._changed.add(path)

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        del self._attached[name]
        used = {path for each in self._attached.values() for path in each.layers}
        for path in self._changed - used:  # the layer computes at its own speed again
            del self._modules[path].forward
        self._changed &= used

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[PeftModel]:
        """Inside the block the base has this adapter alone, as if there were no others."""
        attached = self._attached[name]
        for path, layer in attached.layers.items():
            self._put(path, layer)
        self.base.peft_config = attached.model.peft_config
        try:
            yield attached.model
        finally:
            self._make_bare()

    @contextlib.contextmanager
    def slices(self, slices: Sequence[Slice], *, apart: bool = False) -> Iterator[None]:
        """Inside the block the base computes one row, the tokens of these adapters one after the other.

        The backward pass must be over before the block is left where activations are computed again for it.

        Args:
            slices: who has how many tokens.
            apart: keep numbers that are not finite to the adapter that they come from; slower.
        """
        found = _Pass(apart=apart)
        for each in slices:
            end = found.tokens + each.tokens
            for path, layer in self._attached[each.adapter].layers.items():
                found.parts.setdefault(path, []).append((found.tokens, end, each, layer))
            found.tokens = end
        self._pass = found
        try:
            yield
        finally:
            self._pass = None

    @cached_property
    def _by_rows(self) -> frozenset[str]:
        return layers_by_rows(self.base, {path: each for path, each in self._modules.items() if is_linear(each)})

    def _make_bare(self) -> None:
        for path, module in self._modules.items():  # parents come before what is in them
            if self.base.get_submodule(path) is not module:
                self._put(path, module)
        # PEFT leaves its mark on a base, and warns of a second adapter where it finds one.
        self.base.__dict__.pop("peft_config", None)

    def _put(self, path: str, module: torch.nn.Module) -> None:
        parent, _, child = path.rpartition(".")
        setattr(self.base.get_submodule(parent), child, module)

    def _computed(self, path: str, module: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """What takes the place of a layer's forward pass."""
        alone = module.forward

        def forward(states: torch.Tensor) -> torch.Tensor:
            now = self._pass
            if now is None or path not in now.parts:
                found: torch.Tensor = alone(states)
                return found
            if states.shape[:-1].numel() != now.tokens:
                raise ModelError(f"layer {path} got {tuple(states.shape)} for {now.tokens} tokens")
            slices = self._slices(now, path, states)
            result = linear_with_slices(module, states, slices)
            if result is None:
                # bitsandbytes returns views of its own, which autograd lets nobody write to.
                result = add_slices(states, alone(states).clone(memory_format=torch.contiguous_format), slices)
            return result

        return forward

    def _slices(self, now: _Pass, path: str, states: torch.Tensor) -> LoraSlices:
        kept, parts = None, []
        like = states.reshape(-1, states.shape[-1])
        for start, end, each, layer in now.parts[path]:
            # PEFT's own dropout module stays as the last measurement has left it.
            share = float(getattr(layer.lora_dropout[_NAME], "p", 0.0)) if self.base.training else 0.0
            if share:
                kept = torch.ones_like(like, dtype=computed_dtype(states)) if kept is None else kept
                again = None
                if self._recomputes:
                    again = _again(now, (each.adapter, path), each.random)
                each.random.keep(kept[start:end], share, again)
            weights = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
            parts.append(LoraSlice(start, end, *weights, layer.scaling[_NAME], share))
        if now.apart:
            return LoraSlices(parts, kept)
        key = tuple((each.start, each.end, len(each.first), each.factor) for each in parts)
        if key not in now.factors:  # alike for nearly all layers
            now.factors[key] = factors_of(parts, now.tokens, like.new_empty(0, dtype=computed_dtype(states)))
        return LoraSlices(parts, kept, now.factors[key])


def _again(now: _Pass, place: tuple[str, str], random: OwnRandom) -> torch.Tensor | None:
    """Where a backward pass that computes activations again draws what it drew before; None in the forward pass."""
    if torch._C._current_graph_task_id() != -1:  # as torch's own checkpoints know it
        return now.drawn[place]
    now.drawn[place] = random.state
    return None


def _unfit(layer: LoraLayer, *, by_rows: bool, is_head: bool) -> str | None:
    """Why a layer cannot compute slices; None where it can."""
    if not isinstance(layer, Linear | Linear4bit):
        return f"PEFT's {type(layer).__name__} is no plain linear layer in 4 bits or more"
    if is_head:
        return "it is the output layer, which computes each trial's loss"
    if layer.lora_variant or any(each.bias is not None for each in layer.lora_B.values()):
        return "its adapter is more than two products"
    if not by_rows:
        return "it sees some of the tokens only, and does not know whose they are"
    return None
