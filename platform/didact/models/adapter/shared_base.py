"""One base and the LoRA adapters that are trained on it together.

Each adapter has PEFT's own layers, which stand in the base only where it computes alone (`alone`): to be measured and
saved. While all compute together (`slices`) the base is bare, its layers see the tokens of all adapters in one row, and
hooks behind them add to each adapter's slice what that adapter says. So a base in few bits is unpacked once for all.
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
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.errors import ModelError
from didact.models.adapter.attach import attach_adapter
from didact.models.adapter.row_grouping import layers_by_rows
from didact.models.adapter.slice_operator import LoraSlice, add_slices
from didact.models.methods.blocks import is_linear
from didact.spec import LoraSpec

_NAME = "default"  # of each adapter inside PEFT, as where it is alone


class OwnRandom:
    """The random numbers of one adapter: those that it would draw if it computed alone."""

    def __init__(self, device: torch.device, seed: int) -> None:
        """Begin as `torch.manual_seed(seed)` lets the generator of `device` begin."""
        cuda = device.type == "cuda"
        self._generator = torch.cuda.default_generators[device.index or 0] if cuda else torch.default_generator
        self.state = torch.Generator(device).manual_seed(seed).get_state()

    @contextlib.contextmanager
    def drawn(self, again: torch.Tensor | None = None) -> Iterator[None]:
        """Inside the block torch draws from here, and goes on from there the next time.

        Args:
            again: a former `state`, to draw what was drawn from there; the next time is as if it had not been.
        """
        before = self._generator.get_state()
        self._generator.set_state(self.state if again is None else again)
        try:
            yield
        finally:
            if again is None:
                self.state = self._generator.get_state()
            self._generator.set_state(before)


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
    drawn: dict[tuple[str, str], torch.Tensor] = field(default_factory=dict)
    """What (adapter, layer) had drawn before its dropout, for a pass that is computed again."""


class SharedBase:
    """Not thread-safe: one thread computes."""

    def __init__(self, base: PreTrainedModel) -> None:
        """
        Args:
            base: frozen and bare, its attention already that of packed rows.
        """
        self.base = base
        self._modules = dict(base.named_modules())
        self._attached: dict[str, _Attached] = {}
        self._hooks: dict[str, RemovableHandle] = {}
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
        for path in layers.keys() - self._hooks.keys():
            self._hooks[path] = self._modules[path].register_forward_hook(self._hook(path))

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        del self._attached[name]
        used = {path for each in self._attached.values() for path in each.layers}
        for path in self._hooks.keys() - used:  # without a hook the layer computes at its own speed again
            self._hooks.pop(path).remove()

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
    def slices(self, slices: Sequence[Slice]) -> Iterator[None]:
        """Inside the block the base computes one row, the tokens of these adapters one after the other.

        The backward pass must be over before the block is left where activations are computed again for it.
        """
        found = _Pass()
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

    def _hook(self, path: str) -> Callable[..., torch.Tensor | None]:
        def add(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            if self._pass is None or path not in self._pass.parts:
                return None
            entered = args[0]
            if entered.shape[:-1].numel() != self._pass.tokens:
                raise ModelError(f"layer {path} got {tuple(entered.shape)} for {self._pass.tokens} tokens")
            parts = [self._part(self._pass, path, entered, *each) for each in self._pass.parts[path]]
            # bitsandbytes returns views of its own, which autograd lets nobody write to.
            own = output if type(module) in (torch.nn.Linear, Conv1D) else output.clone()
            return add_slices(entered, own.contiguous(), parts)

        return add

    def _part(
        self, now: _Pass, path: str, entered: torch.Tensor, start: int, end: int, each: Slice, layer: Any
    ) -> LoraSlice:
        # PEFT's own dropout module stays as the last measurement has left it.
        share = float(getattr(layer.lora_dropout[_NAME], "p", 0.0)) if self.base.training else 0.0
        kept = None
        if share:
            states = entered.reshape(-1, entered.shape[-1])[start:end]
            kept = _kept(now, (each.adapter, path), each.random, share, states)
        weights = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
        return LoraSlice(start, end, *weights, layer.scaling[_NAME], kept, share)


def _kept(now: _Pass, place: tuple[str, str], random: OwnRandom, share: float, states: torch.Tensor) -> torch.Tensor:
    """What dropout keeps of `states` [tokens, inputs]: what its layer would draw alone.

    In a backward pass, which computes activations again, as it was drawn before.
    """
    again = None
    if torch._C._current_graph_task_id() != -1:  # as torch's own checkpoints know it
        again = now.drawn[place]
    else:
        now.drawn[place] = random.state
    with random.drawn(again):
        return functional.dropout(torch.ones_like(states), share).bool()


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
