"""Rows of the base and of many adapters in one forward pass.

Each linear layer of the base has places ("slots") for the weights of several adapters side by side, written in place
while the engine runs. Hooks behind the layers add to each row what its own adapter says. Rows of one slot are computed
together, the slots as one batched product (the grouped form of Punica, Chen et al. 2023): every adapter's weights are
read once a step, and no row pays for another's. Rows of the base are not touched. On processors a compiled kernel
(`row_kernel`) does the same for few tokens; the batched product is its twin.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.adapter.row_adapter import LoraPart, RowAdapter, ScalePart
from didact.models.adapter.row_grouping import Grouping, Marked, Slots, by_rows, layers_by_rows
from didact.models.adapter.row_kernel import RowKernel, row_kernel

_log = get_logger(__name__)
_MOST_WRONG_BASE = 0.01
"""Share of an adapter's effect by which a row of the base may differ from itself in a batch of the same size."""
_MOST_WRONG = 0.5
"""The same for a row with an adapter, beside it alone: in half precision another size of batch rounds otherwise."""


class RowSlots:
    """Memory for `num_slots` adapters on a base. Not thread-safe; the base must carry no wrappers when it is made."""

    def __init__(self, base: PreTrainedModel, num_slots: int) -> None:
        self.num_slots = num_slots
        self.modules = frozenset(name for name, _ in base.named_modules())
        self.dtype = base.dtype if base.dtype.is_floating_point else torch.float32
        self._base = base
        self._sites = {
            name: _Site(module, num_slots, self.dtype)
            for name, module in base.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        self._grouping: Grouping | None = None
        self._known: dict[Slots, Grouping] = {}
        self._hooks: dict[str, tuple[RemovableHandle, ...]] = {}
        self.version = 0
        """Goes up whenever weights may have moved."""

    @cached_property
    def kernel(self) -> RowKernel | None:
        """What adds LoRA to few tokens a row; None for batched products always. Compiled when first needed."""
        return row_kernel(self._base.device, self.dtype)

    @property
    def linear(self) -> Mapping[str, tuple[int, int]]:
        """Inputs and outputs of the layers that adapters may be on."""
        return {name: (site.inputs, site.outputs) for name, site in self._sites.items()}

    def put(self, slot: int, adapter: RowAdapter) -> None:
        """Write an adapter into a slot that no row in generation uses; what was there is gone."""
        for name, site in self._sites.items():
            site.write(slot, adapter.parts.get(name))
            hooked = self._hooks.pop(name, ())
            if any(part is not None for part in site.parts):
                self._hooks[name] = hooked or self._hook(site)
            else:  # without a hook the layer computes at its own speed again
                for hook in hooked:
                    hook.remove()
        self._known.clear()
        self.version += 1

    @contextlib.contextmanager
    def rows(self, slots: Sequence[int | None], length: int) -> Iterator[None]:
        """Inside the block, row i of what the base computes has the adapter in `slots[i]`; None is the base.

        Args:
            slots: one for each row.
            length: tokens a row.
        """
        key = tuple(slots)
        if all(slot is None for slot in key):
            yield
            return
        if key not in self._known:
            if len(self._known) > 64:
                self._known.clear()
            self._known[key] = Grouping(key, self._sites.values(), self._base.device)
        self._grouping = self._known[key]
        self._grouping.length, self._grouping.kernel = length, self.kernel
        try:
            yield
        finally:
            self._grouping = None

    @contextlib.contextmanager
    def everywhere(self, slot: int) -> Iterator[None]:
        """Inside the block, all that the base computes has the adapter in `slot`, whatever its shape."""
        self._grouping = Grouping((slot,), self._sites.values(), self._base.device)
        try:
            yield
        finally:
            self._grouping = None

    @contextlib.contextmanager
    def marked(self, marks: torch.Tensor, of_rows: torch.Tensor) -> Iterator[None]:
        """Inside the block, rows of one token have the adapters that tensors on the device say.

        Every slot is computed for every row, and what is another's becomes 0 between the two products: so only values
        change with the rows, as a recorded step needs it.

        Args:
            marks: bool [rows, the first so many slots], whose row is whose.
            of_rows: int64 [rows], each one's slot, `num_slots` for the base.
        """
        self._grouping = Marked(marks, of_rows, self._sites.values())
        try:
            yield
        finally:
            self._grouping = None

    def layout(self) -> tuple[object, ...]:
        """Where the slots' weights lie: what was recorded with `marked` holds while it stays the same."""
        return tuple(site.layout for name, site in self._sites.items() if name in self._hooks)

    def keep_row_by_row(self) -> None:
        """Ask the base with a few tokens which layers see every row's tokens in order; adapters may be on no others.

        An expert of a mixture sees only some of the tokens, so it cannot know whose they are.
        """
        seen = layers_by_rows(self._base, {name: site.module for name, site in self._sites.items()})
        self._sites = {name: site for name, site in self._sites.items() if name in seen}

    def prove(self) -> None:
        """Compute base and adapted rows together and apart, with adapters made up for it. Empties every slot.

        A kernel that fails here is not used.

        Raises:
            ModelError: a row of the base sees an adapter, or a row's adapter depends on its neighbours.
        """
        kernel = self.kernel
        self.kernel = None
        self._prove()
        if kernel is not None:
            self.kernel = kernel
            try:
                self._prove()
            except ModelError as error:
                _log.warning("adapters of many rows are computed without a kernel of their own: %s", error)
                self.kernel = None

    def _prove(self) -> None:
        ids = torch.arange(16, device=self._base.device).view(4, 4) % self._base.config.vocab_size
        others = (0, None, self.num_slots - 1, None)
        try:
            for slot in {0, self.num_slots - 1}:
                self.put(slot, self._made_up(slot))
            with torch.inference_mode():
                plain = self._logits(ids, (None,) * 4)
                together = self._logits(ids, others)
                apart = torch.cat([self._logits(row[None], (slot,)) for row, slot in zip(ids, others, strict=True)])
        finally:
            for slot in range(self.num_slots):
                self.put(slot, RowAdapter({}))
        effect = _size(apart[::2] - plain[::2])
        for name, rows, limit in (("the base", 1, _MOST_WRONG_BASE), ("adapters", 0, _MOST_WRONG)):
            expected = (plain if rows else apart)[rows::2]
            wrong = _size(together[rows::2] - expected) / effect
            if not wrong < limit:
                raise ModelError(f"rows of {name} are off by {wrong:.2g} of what an adapter does; expected {limit}")

    def _logits(self, ids: torch.Tensor, slots: Slots) -> torch.Tensor:
        with self.rows(slots, ids.shape[1]):
            logits: torch.Tensor = self._base(input_ids=ids, use_cache=False).logits
        return logits.float()

    def _made_up(self, seed: int) -> RowAdapter:
        """A random LoRA adapter on every layer that changes each layer's output by about a tenth."""
        random = torch.Generator().manual_seed(seed)
        parts: dict[str, LoraPart | ScalePart] = {}
        for name, site in self._sites.items():
            first, second = (torch.randn(2, size, generator=random) for size in (site.inputs, site.outputs))
            parts[name] = LoraPart(first.to(self.dtype), (second * 0.1 / math.sqrt(site.inputs)).to(self.dtype))
        return RowAdapter(parts)

    def _hook(self, site: "_Site") -> tuple[RemovableHandle, ...]:
        def before(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            grouping = self._grouping
            if grouping is None or not grouping.scales_inputs.get(site) or not args[0].numel():
                return None
            return site.scale(args[0], grouping, site.input_factors), *args[1:]

        def after(_: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            grouping = self._grouping
            if grouping is None:
                return None
            ready = grouping.ready.get(site)
            if ready is not None and ready(args[0], output):
                return output
            if not output.numel():  # no logits are asked for
                return None
            rank = grouping.ranks[site]
            if rank:
                output = site.add(args[0], output, grouping, rank)
            if grouping.scales_outputs[site]:
                output = site.scale(output, grouping, site.output_factors)
            return output

        return site.module.register_forward_pre_hook(before), site.module.register_forward_hook(after)


class _Site:
    """A linear layer and what the adapters in the slots have beside it."""

    def __init__(self, module: torch.nn.Module, num_slots: int, dtype: torch.dtype) -> None:
        self.module = module
        if isinstance(module, Conv1D):
            self.inputs, self.outputs = module.nx, module.nf
        else:
            self.inputs, self.outputs = module.in_features, module.out_features
        self.parts: list[LoraPart | ScalePart | None] = [None] * num_slots
        self._dtype = dtype
        device = module.weight.device
        self._first = torch.zeros(num_slots, 0, self.inputs, dtype=dtype, device=device)
        self._second = torch.zeros(num_slots, 0, self.outputs, dtype=dtype, device=device)
        # One more than slots: the factors of rows without any.
        self.input_factors = torch.ones(0, self.inputs, dtype=dtype, device=device)
        self.output_factors = torch.ones(0, self.outputs, dtype=dtype, device=device)

    def write(self, slot: int, part: LoraPart | ScalePart | None) -> None:
        old, self.parts[slot] = self.parts[slot], part
        if isinstance(old, LoraPart):
            self._first[slot].zero_()
            self._second[slot].zero_()
        elif isinstance(old, ScalePart):
            (self.input_factors if old.of_inputs else self.output_factors)[slot].fill_(1)
        if not any(isinstance(each, LoraPart) for each in self.parts):
            self._first, self._second = self._first[:, :0].clone(), self._second[:, :0].clone()
        if isinstance(part, LoraPart):
            rank = part.first.shape[0]
            if rank > self._first.shape[1]:
                self._first, self._second = (_widened(each, rank) for each in (self._first, self._second))
            self._first[slot, :rank].copy_(part.first)
            self._second[slot, :rank].copy_(part.second)
        elif isinstance(part, ScalePart):
            if part.of_inputs:
                self.input_factors = _with_room(self.input_factors, len(self.parts) + 1)
                self.input_factors[slot].copy_(part.factors)
            else:
                self.output_factors = _with_room(self.output_factors, len(self.parts) + 1)
                self.output_factors[slot].copy_(part.factors)

    def add(self, entered: torch.Tensor, output: torch.Tensor, grouping: Grouping, rank: int) -> torch.Tensor:
        """The layer's output [rows, length, outputs], or without rows apart, with B A x of each row's adapter added."""
        if isinstance(grouping, Marked):
            return self._add_marked(entered, output, grouping.marks)
        if grouping.kernel is not None and self._add_by_kernel(entered, output, grouping, rank):
            return output
        if grouping.only is not None:
            first, second = self._first[grouping.only, :rank], self._second[grouping.only, :rank]
            inner = entered.to(first.dtype).reshape(-1, self.inputs) @ first.t()
            flat = output.view(-1, self.outputs)
            return (flat.addmm_(inner, second) if flat.dtype == inner.dtype else flat.add_(inner @ second)).view_as(
                output
            )
        rows = by_rows(entered, grouping.num_rows, grouping.length)
        if rows is None or not output.is_contiguous():
            raise RuntimeError(f"a layer got {tuple(entered.shape)} for {grouping.num_rows} rows")
        first = self._first[grouping.used, :rank].transpose(1, 2)
        second = self._second[grouping.used, :rank]
        rows = rows.to(first.dtype)
        groups = first.shape[0]
        if grouping.gather is None:
            inner = torch.bmm(rows.reshape(groups, -1, self.inputs), first)
            added = output.view(groups, -1, self.outputs)
            if output.dtype == inner.dtype:
                added.baddbmm_(inner, second)
            else:
                added.add_(torch.bmm(inner, second))
            return output
        inner = torch.bmm(rows[grouping.gather].view(groups, -1, self.inputs), first)
        more = torch.bmm(inner, second).view(len(grouping.gather), -1, self.outputs)[grouping.places]
        output.view(grouping.num_rows, -1, self.outputs).index_add_(0, grouping.adapted, more.to(output.dtype))
        return output

    def _add_by_kernel(self, entered: torch.Tensor, output: torch.Tensor, grouping: Grouping, rank: int) -> bool:
        rows, kernel = by_rows(entered, grouping.num_rows, grouping.length), grouping.kernel
        if rows is None or kernel is None or not kernel.takes(rows, output, rank, grouping.groups):
            return False
        addition = kernel.addition(rows, self._first, self._second, rank, grouping.groups, entered.shape)
        if not grouping.scales_outputs[self]:
            grouping.ready[self] = addition
        return addition(entered, output)

    def _add_marked(self, entered: torch.Tensor, output: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        rows, slots = marks.shape
        first, second = self._first[:slots], self._second[:slots]
        inner = entered.to(first.dtype).reshape(rows, self.inputs) @ first.reshape(-1, self.inputs).t()
        inner = inner.view(rows, slots, -1).masked_fill(~marks[..., None], 0).view(rows, -1)
        flat, second = output.view(rows, self.outputs), second.reshape(-1, self.outputs)
        flat = flat.addmm_(inner, second) if flat.dtype == inner.dtype else flat.add_(inner @ second)
        return flat.view_as(output)

    @property
    def rank(self) -> int:
        """The largest that the memory has room for."""
        return int(self._first.shape[1])

    @property
    def layout(self) -> tuple[object, ...]:
        """Where the memory is, and what of it is used."""
        held = (self._first, self._second, self.input_factors, self.output_factors)
        return *((each.data_ptr(), each.shape) for each in held), *self.scales

    @property
    def scales(self) -> tuple[bool, bool]:
        """Whether any slot scales what enters the layer, and what leaves it."""
        scaling = [each for each in self.parts if isinstance(each, ScalePart)]
        return any(each.of_inputs for each in scaling), any(not each.of_inputs for each in scaling)

    def scale(self, states: torch.Tensor, grouping: Grouping, factors: torch.Tensor) -> torch.Tensor:
        """States with each row multiplied with its own factors, in a tensor of their own."""
        if grouping.only is not None:
            return states * factors[grouping.only].to(states.dtype)
        rows = by_rows(states, grouping.num_rows, grouping.length)
        if rows is None:
            raise RuntimeError(f"a layer got {tuple(states.shape)} for {grouping.num_rows} rows")
        return (rows * factors[grouping.of_rows][:, None].to(rows.dtype)).view_as(states)


def _size(states: torch.Tensor) -> float:
    return float(states.square().mean().sqrt())


def _widened(memory: torch.Tensor, rank: int) -> torch.Tensor:
    """Memory [slots, rank, features] for a larger rank."""
    grown = memory.new_zeros(memory.shape[0], rank, memory.shape[2])
    grown[:, : memory.shape[1]] = memory
    return grown


def _with_room(factors: torch.Tensor, count: int) -> torch.Tensor:
    return factors if len(factors) else factors.new_ones(count, factors.shape[1])
