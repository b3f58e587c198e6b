"""Which rows of a packed sequence are attended to together: samples cut into blocks, equal blocks side by side."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch

from didact.errors import ModelError

# Lengths are rounded up to this, so that blocks have few shapes: fewer, larger products, and few kernels to generate.
_ROUND = 32
# Queries taken at once: bounds memory at this times the sample's length for each head.
_BLOCK = 128
# Scores held at once, over all heads and blocks.
_SCORES = 1 << 24


class Span(NamedTuple):
    """Where a sample lies in a packed row."""

    start: int
    """Its first token."""
    end: int
    """Behind its last."""
    head: int = 0
    """Where the sample begins whose first tokens are its own as well."""
    shared: int = 0
    """How many of them stand there alone, and are seen from here."""


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
    repeats: bool
    """Whether a row may be in `key_rows[own]` more than once: first tokens that several samples see."""

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


def sample_spans(positions: torch.Tensor) -> tuple[Span, ...]:
    """Each sample in a packed row, from its positions [1, length].

    A sample begins where positions do not go on. One that begins at a position p above 0 goes on behind the first p
    tokens of the last sample that began at 0 (`tokens.pack`).

    Raises:
        ModelError: the row does not begin with position 0, or a sample goes on behind more tokens than there are.
    """
    row = positions[0]
    starts = [0, *(torch.nonzero(row[1:] != row[:-1] + 1).flatten() + 1).tolist()]
    begins = row[starts].tolist()
    if begins[0] != 0:
        raise ModelError(f"a packed row must begin with position 0; found {row[:4].tolist()}")
    spans: list[Span] = []
    whole = Span(0, 0)
    for start, end, begin in zip(starts, [*starts[1:], len(row)], begins, strict=True):
        if begin > (before := whole.end - whole.start):
            raise ModelError(f"a sample of a packed row begins at position {begin}, behind one of {before} tokens")
        spans.append(Span(start, end, whole.start if begin else start, begin))
        whole = whole if begin else spans[-1]
    return tuple(spans)


@lru_cache(maxsize=4)  # every layer of a model asks for the same one
def plan_attention(spans: tuple[Span, ...], num_heads: int, num_key_heads: int) -> Plan:
    """The plan for samples at `spans`; `num_heads` is a multiple of `num_key_heads`."""
    shapes = defaultdict(list)
    for span in spans:
        for first in range(span.start, span.end, _BLOCK):
            last = min(first + _BLOCK, span.end)
            queries = -(-(last - first) // _ROUND) * _ROUND
            shapes[queries, span.shared + first - span.start + queries].append((*span, first, last))
    groups: list[Group] = []
    for (queries, keys), blocks in sorted(shapes.items()):
        at_once = max(1, _SCORES // (num_heads * queries * keys))
        for begin in range(0, len(blocks), at_once):
            groups.append(_group(blocks[begin : begin + at_once], queries, keys, num_heads, num_key_heads))
    order, before = torch.empty(spans[-1].end * num_heads, dtype=torch.int64), 0
    for group in groups:
        places = torch.arange(before, before + len(group.query_rows))
        own = torch.ones(len(places), dtype=torch.bool).index_fill_(0, group.filler, False)
        order[group.query_rows[own]] = places[own]
        before += len(places)
    return Plan(tuple(groups), order)


def _group(blocks: Sequence[tuple[int, ...]], queries: int, keys: int, num_heads: int, num_key_heads: int) -> Group:
    starts, _, parents, shared, firsts, lasts = (torch.tensor(each)[:, None] for each in zip(*blocks, strict=True))
    heads = torch.arange(num_heads).view(num_key_heads, 1, -1, 1)
    query_places, seen = firsts + torch.arange(queries), torch.arange(keys)
    key_places = torch.where(seen < shared, parents + seen, starts + seen - shared)
    filled = (seen >= shared) & (key_places >= lasts)
    query_rows = torch.minimum(query_places, lasts - 1)[:, None] * num_heads + heads
    key_rows = key_places.where(~filled, lasts - 1) * num_key_heads + torch.arange(num_key_heads)[:, None, None]
    filler = (query_places >= lasts)[:, None].expand(query_rows.shape)
    return Group(
        queries=queries,
        keys=keys,
        query_rows=query_rows.flatten(),
        key_rows=key_rows.flatten(),
        filler=filler.flatten().nonzero()[:, 0],
        own=(~filled).expand(key_rows.shape).flatten().nonzero()[:, 0],
        repeats=bool(shared.any()),
    )
