"""Which rows of a batch have which adapter, worked out once for all layers of a pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from didact.models.adapter.row_adapter import LoraPart, ScalePart
from didact.models.adapter.row_kernel import Addition, RowGroups, RowKernel

_PROBES = ((2, 3), (3, 5))
"""Rows and tokens a row of the texts that find out which layers compute row by row."""
Slots = tuple[int | None, ...]
"""Each row's slot; None is the base."""


@dataclass(init=False)
class Grouping:
    """Which rows of a batch share a slot, and how much of each layer's memory is read for them.

    Layers ("sites") are those of `RowSlots`.
    """

    num_rows: int
    only: int | None
    """The slot that every row has; None where they differ."""
    length: int
    """Tokens a row in the pass that is computed."""
    kernel: RowKernel | None
    """None where it is not to be used."""
    groups: RowGroups
    ready: dict[Any, Addition]
    """What the kernel adds in a layer whose outputs no adapter scales, from its first call on."""
    used: slice | torch.Tensor
    """The slots whose weights are read."""
    gather: torch.Tensor | None
    """[groups x most rows in one], the rows by slot, filled up with row 0; None where the batch lies like that."""
    places: torch.Tensor
    """Where in `gather` each adapted row is."""
    adapted: torch.Tensor
    """Rows with an adapter."""
    of_rows: torch.Tensor
    """[rows] each one's slot, `num_slots` for the base."""
    ranks: dict[Any, int]
    """Largest rank among the slots in use, by layer; 0 where none has a LoRA there."""
    scales_inputs: dict[Any, bool]
    scales_outputs: dict[Any, bool]

    def __init__(self, slots: Slots, sites: Any, device: torch.device) -> None:
        self.num_rows = len(slots)
        self.only = slots[0] if len(set(slots)) == 1 else None
        groups: dict[int, list[int]] = {}
        for row, slot in enumerate(slots):
            if slot is not None:
                groups.setdefault(slot, []).append(row)
        self.kernel, self.groups, self.ready = None, RowGroups(groups), {}
        first, last = min(groups), max(groups) + 1
        # Reading a slot that no row has costs as much as reading one that a row has; picking copies them all first.
        dense = last - first <= 1.5 * len(groups)
        order = list(range(first, last)) if dense else sorted(groups)
        self.used = slice(first, last) if dense else torch.tensor(order, device=device)
        most = max(map(len, groups.values()))
        table = [[*groups.get(slot, ()), *[0] * (most - len(groups.get(slot, ())))] for slot in order]
        flat = [row for group in table for row in group]
        whole = len(groups) == len(order) and flat == list(range(self.num_rows))
        self.gather = None if whole else torch.tensor(flat, device=device)
        pairs = [
            (row, index * most + place)
            for index, slot in enumerate(order)
            for place, row in enumerate(groups.get(slot, ()))
        ]
        self.adapted = torch.tensor([row for row, _ in pairs], device=device)
        self.places = torch.tensor([place for _, place in pairs], device=device)
        num_slots = len(next(iter(sites)).parts)
        self.of_rows = torch.tensor([num_slots if slot is None else slot for slot in slots], device=device)
        self.ranks, self.scales_inputs, self.scales_outputs = {}, {}, {}
        for site in sites:
            parts = [site.parts[slot] for slot in groups]
            self.ranks[site] = max((each.first.shape[0] for each in parts if isinstance(each, LoraPart)), default=0)
            scales = [each.of_inputs for each in parts if isinstance(each, ScalePart)]
            self.scales_inputs[site], self.scales_outputs[site] = any(scales), not all(scales)


class Marked(Grouping):
    """Rows of one token each, told apart by values on the device."""

    marks: torch.Tensor
    """bool [rows, slots], whose row is whose."""

    def __init__(self, marks: torch.Tensor, of_rows: torch.Tensor, sites: Any) -> None:
        self.num_rows, self.length, self.only, self.ready = len(marks), 1, None, {}
        self.marks, self.of_rows = marks, of_rows
        self.ranks = {site: site.rank for site in sites}
        self.scales_inputs = {site: site.scales[0] for site in sites}
        self.scales_outputs = {site: site.scales[1] for site in sites}


def by_rows(states: torch.Tensor, num_rows: int, length: int) -> torch.Tensor | None:
    """States as [rows, length, features]; None where they are not every row's tokens in order."""
    if states.dim() == 3 and states.shape[0] == num_rows and states.shape[1] in (length, 1):
        return states  # 1 for the logits of the last token only
    if states.dim() == 2 and states.shape[0] == num_rows * length:
        return states.view(num_rows, length, -1)
    return None


def layers_by_rows(base: PreTrainedModel, layers: Mapping[str, torch.nn.Module]) -> frozenset[str]:
    """Which of the base's layers see every row's tokens in order, found out with a few tokens.

    Args:
        base: without wrappers.
        layers: some of its modules, by name.
    """
    seen: dict[str, bool] = {}
    shape = _PROBES[0]

    def note(name: str, entered: torch.Tensor) -> None:
        seen[name] = seen.get(name, True) and by_rows(entered, *shape) is not None

    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, layer in layers.items()
    ]
    try:
        with torch.inference_mode():
            for shape in _PROBES:
                ids = torch.arange(math.prod(shape), device=base.device) % base.config.vocab_size
                base(input_ids=ids.view(shape), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(name for name, by_row in seen.items() if by_row)
