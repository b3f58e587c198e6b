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
    search: str | None


class PrefixCache:
    """Prompts of each adapter version, the least recently used forgotten beyond a number of bytes.

    A version's id names its content, so what is kept under it is never stale. Only the step thread asks.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._prompts: OrderedDict[_Key, _Prompt] = OrderedDict()
        self.num_bytes = 0

    def match(self, version_id: str | None, ids: Sequence[int], search: str | None = None) -> int:
        """How many of a text's first tokens are known. The last one never is, for its logits are asked.

        Texts of a search go on from each other, all by one token, so for them every token counts and not only blocks.
        """
        return self._nearest(version_id, ids, search)[0]

    def take(self, rows: Sequence[tuple[str | None, Sequence[int], str | None]], length: int) -> Cache:
        """A cache with the first `length` tokens of each row's text, which `match` has found to be known."""
        prompts = []
        for version_id, ids, search in rows:
            key = self._nearest(version_id, ids, search)[1]
            assert key is not None
            self._prompts.move_to_end(key)
            prompts.append(self._prompts[key].layers)
        cache = DynamicCache()
        for index, layers in enumerate(zip(*prompts, strict=True)):
            keys, values = (torch.stack([each[part][:, :length] for each in layers]) for part in (0, 1))
            cache.update(keys, values, index)
        return cache

    def keep(
        self,
        version_id: str | None,
        ids: Sequence[int],
        cache: Cache,
        row: int,
        columns: torch.Tensor,
        search: str | None = None,
    ) -> None:
        """Remember a text that was read; of a search, in place of those that are shorter by more than a token.

        Args:
            version_id: the adapter's, None for the base.
            ids: the text.
            cache: where its keys and values are.
            row: of the cache.
            columns: of its tokens in the cache, int64 [tokens].
            search: the search that goes on from it.
        """
        if search is None and (len(ids) <= BLOCK or self.match(version_id, ids) + BLOCK >= len(ids)):
            return
        if (version_id, tuple(ids)) in self._prompts:
            return
        layers = cache.layers
        num_bytes = sum(each.element_size() * each[row].numel() // each.shape[2] * len(ids)
                        for layer in layers for each in (layer.keys, layer.values))  # fmt: skip
        if num_bytes > self._max_bytes // 2:
            return
        copies = [(layer.keys[row].index_select(1, columns), layer.values[row].index_select(1, columns))
                  for layer in layers]  # fmt: skip
        if search is not None:
            self._forget_shorter(search, len(ids) - 1)
        self._prompts[version_id, tuple(ids)] = _Prompt(copies, num_bytes, search)
        self.num_bytes += num_bytes
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= self._prompts.popitem(last=False)[1].num_bytes

    def _forget_shorter(self, search: str, length: int) -> None:
        for key in [key for key, each in self._prompts.items() if each.search == search and len(key[1]) < length]:
            self.num_bytes -= self._prompts.pop(key).num_bytes

    def _nearest(self, version_id: str | None, ids: Sequence[int], search: str | None) -> tuple[int, _Key | None]:
        best: tuple[int, _Key | None] = (0, None)
        for key in self._prompts:
            if key[0] == version_id:
                length = _num_alike(key[1], ids, search is not None)
                if length > best[0]:
                    best = length, key
        return best


def _num_alike(known: Sequence[int], ids: Sequence[int], each_token: bool) -> int:
    """Tokens in which two texts begin alike, in whole blocks or each of them, the last of `ids` not counted."""
    most = min(len(known), len(ids) - 1)
    count = 0
    while count + BLOCK <= most and tuple(known[count : count + BLOCK]) == tuple(ids[count : count + BLOCK]):
        count += BLOCK
    while each_token and count < most and known[count] == ids[count]:
        count += 1
    return count
