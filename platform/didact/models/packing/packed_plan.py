"""Which rows of a packed sequence are attended to together: samples cut into blocks, equal blocks side by side."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import torch

from didact.errors import ModelError

# Lengths are rounded up to this, so that blocks have few shapes: fewer, larger products, and few kernels to generate.
_ROUND = 32
# Queries taken at once: bounds memory at this times the sample's length for each head.
_BLOCK = 128
# Scores held at once, over all heads and blocks.
_SCORES = 1 << 24


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks of one shape, to be attended to by one product.

    The sequence is seen as rows [length * heads, head_dim]. Where a sample ends before its block does, filler repeats
    its last row: no query before it sees it, and what it computes is dropped.
    """

    queries: int
    """Queries a block, rounded."""
    keys: int
    """Keys a block, from its sample's first token on, rounded."""
    query_rows: torch.Tensor
    """Rows of the queries, as [key heads, blocks, heads a key head, queries] flattened."""
    key_rows: torch.Tensor
    """Rows of keys and values, as [key heads, blocks, keys] flattened."""
    filler: torch.Tensor
    """Places in `query_rows` of filler."""
    own: torch.Tensor
    """Places in `key_rows` that are not filler."""

    @property
    def offset(self) -> int:
        """How many tokens into its sample a block's first query comes."""
        return self.keys - self.queries


@dataclass(frozen=True, slots=True)
class Plan:
    """How one sequence is attended to."""

    groups: tuple[Group, ...]
    order: torch.Tensor
    """For each row of the sequence, its place in the outputs of all groups one after the other."""


def sample_spans(positions: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """(start, end) of each sample in a packed row, from its positions [1, length].

    Raises:
        ModelError: the row does not begin with position 0.
    """
    starts = torch.nonzero(positions[0] == 0).flatten().tolist()
    if not starts or starts[0] != 0:
        raise ModelError(f"a packed row must begin with position 0; found {positions[0, :4].tolist()}")
    return tuple(zip(starts, [*starts[1:], positions.shape[1]], strict=True))


@lru_cache(maxsize=4)  # every layer of a model asks for the same one
def plan_attention(spans: tuple[tuple[int, int], ...], num_heads: int, num_key_heads: int) -> Plan:
    """The plan for samples at `spans` (start, end); `num_heads` is a multiple of `num_key_heads`."""
    shapes = defaultdict(list)
    for start, end in spans:
        for first in range(start, end, _BLOCK):
            last = min(first + _BLOCK, end)
            queries = -(-(last - first) // _ROUND) * _ROUND
            shapes[queries, first - start + queries].append((start, first, last))
    groups: list[Group] = []
    for (queries, keys), blocks in sorted(shapes.items()):
        at_once = max(1, _SCORES // (num_heads * queries * keys))
        for begin in range(0, len(blocks), at_once):
            groups.append(_group(blocks[begin : begin + at_once], queries, keys, num_heads, num_key_heads))
    order, before = torch.empty(spans[-1][1] * num_heads, dtype=torch.int64), 0
    for group in groups:
        places = torch.arange(before, before + len(group.query_rows))
        own = torch.ones(len(places), dtype=torch.bool).index_fill_(0, group.filler, False)
        order[group.query_rows[own]] = places[own]
        before += len(places)
    return Plan(tuple(groups), order)


def _group(blocks: list[tuple[int, int, int]], queries: int, keys: int, num_heads: int, num_key_heads: int) -> Group:
    starts, firsts, lasts = (torch.tensor(each)[:, None] for each in zip(*blocks, strict=True))
    heads = torch.arange(num_heads).view(num_key_heads, 1, -1, 1)
    query_places, key_places = firsts + torch.arange(queries), starts + torch.arange(keys)
    query_rows = torch.minimum(query_places, lasts - 1)[:, None] * num_heads + heads
    key_rows = torch.minimum(key_places, lasts - 1) * num_key_heads + torch.arange(num_key_heads)[:, None, None]
    filler = (query_places >= lasts)[:, None].expand(query_rows.shape)
    own = (key_places < lasts).expand(key_rows.shape)
    return Group(
        queries=queries,
        keys=keys,
        query_rows=query_rows.flatten(),
        key_rows=key_rows.flatten(),
        filler=filler.flatten().nonzero()[:, 0],
        own=own.flatten().nonzero()[:, 0],
    )
