"""Shares -> a fixed order of sources in which every prefix keeps to the shares."""

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from didact.mixtures.types import Piece

PERIOD = 10_000
"""Positions after which the order of constant weights repeats; a share of 1 is then 1/10,000 of the samples."""
_MIN_PIECE, _MAX_PIECES = 100, 1000


def quantise(weights: Sequence[float], total: int = PERIOD) -> tuple[int, ...]:
    """Weights -> whole shares that sum to `total`, by largest remainder, at least 1 where the weight is above 0.

    Sources that would round to nothing get 1, and the others divide what is left in proportion. `total` is at least
    the number of weights, of which one is above 0.
    """
    exact = [Fraction(weight) for weight in weights]
    lifted: set[int] = set()
    while True:
        others = [index for index, weight in enumerate(exact) if weight and index not in lifted]
        left, whole = total - len(lifted), sum(exact[index] for index in others)
        quotas = {index: left * exact[index] / whole for index in others}
        too_small = {index for index, quota in quotas.items() if quota < 1}
        if not too_small:
            break
        lifted |= too_small
    shares = largest_remainder([quotas.get(index, Fraction(index in lifted)) for index in range(len(exact))])
    return tuple(shares)


def largest_remainder(quotas: Sequence[Fraction]) -> list[int]:
    """Whole numbers with the quotas' sum, itself whole, each quota rounded up or down; ties go to the first."""
    whole = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: (whole[index] - quotas[index], index))
    for index in by_remainder[: int(sum(quotas)) - sum(whole)]:
        whole[index] += 1
    return whole


def schedule(shares: Sequence[int]) -> tuple[int, ...]:
    """The source of each position of one period: after every prefix each source is less than one sample off its share.

    That such an order exists is the chairman assignment problem (Tijdeman 1980, "The chairman assignment problem",
    Discrete Mathematics 32). To stay less than one off, the k-th draw (from 0) of a source with share s may come no
    earlier than position floor(k * period / s) and no later than ceil((k + 1) * period / s) - 1. Among the draws that
    may come now, the one with the earliest deadline is taken, which finds an order wherever there is one.

    Args:
        shares: whole numbers >= 0; their sum is the period.

    Returns:
        As many indices into `shares` as the period has positions.
    """
    period = sum(shares)
    waiting = [(0, index, 0) for index, share in enumerate(shares) if share]
    ready: list[tuple[int, int, int]] = []
    order = []
    for position in range(period):
        while waiting and waiting[0][0] <= position:
            _, index, draw = heapq.heappop(waiting)
            deadline = -(-(draw + 1) * period // shares[index]) - 1
            heapq.heappush(ready, (deadline, index, draw))
        _, index, draw = heapq.heappop(ready)
        order.append(index)
        if draw + 1 < shares[index]:
            heapq.heappush(waiting, ((draw + 1) * period // shares[index], index, draw + 1))
    return tuple(order)


def piece_length(num_samples: int) -> int:
    """Most positions of a piece: 100, or a thousandth of a run of more than 100,000 samples."""
    return max(_MIN_PIECE, -(-num_samples // _MAX_PIECES))


def split(num_positions: int, longest: int) -> list[int]:
    """Lengths of pieces that make up `num_positions`, alike to within one, none above `longest`."""
    parts = -(-num_positions // longest)
    return [num_positions * (part + 1) // parts - num_positions * part // parts for part in range(parts)]


def lay_out(lengths: Sequence[int], shares: Sequence[Sequence[int]]) -> tuple[Piece, ...]:
    """Shares that change from piece to piece -> whole draws in each piece.

    At the end of every piece each source is less than one sample off its exact cumulative share. The pieces are slots
    of the same problem that `schedule` solves position by position, and the earliest deadline is the rule again; of
    equal deadlines the largest remainder comes first.

    Args:
        lengths: positions of each piece, at least 1.
        shares: for each piece the sources' shares, whole numbers >= 0 with one sum for all pieces.
    """
    unit = sum(shares[0])
    due = [  # per source, `unit` times what it should have been drawn by the end of each piece
        list(accumulate(length * share[source] for length, share in zip(lengths, shares, strict=True)))
        for source in range(len(shares[0]))
    ]
    before, start, pieces = [0] * len(due), 0, []
    for piece, length in enumerate(lengths):
        drawn = [max(had, target[piece] // unit) for had, target in zip(before, due, strict=True)]
        open_sources = [source for source, count in enumerate(drawn) if count * unit < due[source][piece]]
        by_deadline = sorted(
            (bisect_left(due[source], (drawn[source] + 1) * unit), drawn[source] * unit - due[source][piece], source)
            for source in open_sources
        )
        for *_, source in by_deadline[: start + length - sum(drawn)]:
            drawn[source] += 1
        counts = tuple(now - had for now, had in zip(drawn, before, strict=True))
        pieces.append(Piece(start, tuple(before), counts))
        before, start = drawn, start + length
    return tuple(pieces)
