"""Keys and values of prompts that were read, for prompts that begin alike."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import Cache, DynamicCache

BLOCK = 16
"""Prefixes count in whole blocks, so that rows which share nearly as much can still be read together."""

_Key = tuple[str | None, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Prompt:
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values [heads, tokens, head size] of each layer."""
    num_bytes: int


class PrefixCache:
    """Prompts of each adapter version, the least recently used forgotten beyond a number of bytes.

    A version's id names its content, so what is kept under it is never stale. Only the step thread asks.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._prompts: OrderedDict[_Key, _Prompt] = OrderedDict()
        self.num_bytes = 0

    def match(self, version_id: str | None, ids: Sequence[int]) -> int:
        """How many of a text's first tokens are known. The last one never is, for its logits are asked."""
        return self._nearest(version_id, ids)[0]

    def take(self, rows: Sequence[tuple[str | None, Sequence[int]]], length: int) -> Cache:
        """A cache with the first `length` tokens of each row's text, which `match` has found to be known."""
        prompts = []
        for version_id, ids in rows:
            key = self._nearest(version_id, ids)[1]
            assert key is not None
            self._prompts.move_to_end(key)
            prompts.append(self._prompts[key].layers)
        cache = DynamicCache()
        for index, layers in enumerate(zip(*prompts, strict=True)):
            keys, values = (torch.stack([each[part][:, :length] for each in layers]) for part in (0, 1))
            cache.update(keys, values, index)
        return cache

    def keep(self, version_id: str | None, ids: Sequence[int], cache: Cache, row: int, columns: torch.Tensor) -> None:
        """Remember a text that was read.

        Args:
            version_id: the adapter's, None for the base.
            ids: the text.
            cache: where its keys and values are.
            row: of the cache.
            columns: of its tokens in the cache, int64 [tokens].
        """
        if len(ids) <= BLOCK or self.match(version_id, ids) + BLOCK >= len(ids):
            return
        layers = cache.layers
        num_bytes = sum(each.element_size() * each[row].numel() // each.shape[2] * len(ids)
                        for layer in layers for each in (layer.keys, layer.values))  # fmt: skip
        if num_bytes > self._max_bytes // 2:
            return
        copies = [(layer.keys[row].index_select(1, columns), layer.values[row].index_select(1, columns))
                  for layer in layers]  # fmt: skip
        self._prompts[version_id, tuple(ids)] = _Prompt(copies, num_bytes)
        self.num_bytes += num_bytes
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= self._prompts.popitem(last=False)[1].num_bytes

    def _nearest(self, version_id: str | None, ids: Sequence[int]) -> tuple[int, _Key | None]:
        best: tuple[int, _Key | None] = (0, None)
        for key in self._prompts:
            if key[0] == version_id:
                length = _num_alike(key[1], ids)
                if length > best[0]:
                    best = length, key
        return best


def _num_alike(known: Sequence[int], ids: Sequence[int]) -> int:
    """Tokens in whole blocks in which two texts begin alike, the last of `ids` not counted."""
    most = min(len(known), len(ids) - 1) // BLOCK * BLOCK
    count = 0
    while count < most and tuple(known[count : count + BLOCK]) == tuple(ids[count : count + BLOCK]):
        count += BLOCK
    return count
