"""Shares -> a fixed order of sources in which every prefix keeps to the shares."""

import heapq
from collections.abc import Sequence
from fractions import Fraction

PERIOD = 10_000
"""Positions after which the order of sources repeats, and the unit of shares: 1 means 1/10,000 of the samples."""


def quantise(weights: Sequence[float]) -> tuple[int, ...]:
    """Positive weights -> whole shares that sum to `PERIOD`, by largest remainder, each at least 1.

    Sources that would round to nothing get 1, and the others divide what is left in proportion.
    """
    exact = [Fraction(weight) for weight in weights]
    lifted: set[int] = set()
    while True:
        others = [index for index in range(len(exact)) if index not in lifted]
        left, total = PERIOD - len(lifted), sum(exact[index] for index in others)
        quotas = {index: left * exact[index] / total for index in others}
        too_small = {index for index, quota in quotas.items() if quota < 1}
        if not too_small:
            break
        lifted |= too_small
    shares = {index: int(quota) for index, quota in quotas.items()} | dict.fromkeys(lifted, 1)
    by_remainder = sorted(others, key=lambda index: (shares[index] - quotas[index], index))
    for index in by_remainder[: PERIOD - sum(shares.values())]:
        shares[index] += 1
    return tuple(shares[index] for index in range(len(exact)))


def schedule(shares: Sequence[int]) -> tuple[int, ...]:
    """The source of each position of one period: after every prefix each source is less than one sample off its share.

    That such an order exists is the chairman assignment problem (Tijdeman 1980, "The chairman assignment problem",
    Discrete Mathematics 32). To stay less than one off, the k-th draw (from 0) of a source with share s may come no
    earlier than position floor(k * PERIOD / s) and no later than ceil((k + 1) * PERIOD / s) - 1. Among the draws that
    may come now, the one with the earliest deadline is taken, which finds an order wherever there is one.

    Args:
        shares: whole numbers >= 1 that sum to `PERIOD`.

    Returns:
        `PERIOD` indices into `shares`.
    """
    waiting = [(0, index, 0) for index in range(len(shares))]
    ready: list[tuple[int, int, int]] = []
    order = []
    for position in range(PERIOD):
        while waiting and waiting[0][0] <= position:
            _, index, draw = heapq.heappop(waiting)
            deadline = -(-(draw + 1) * PERIOD // shares[index]) - 1
            heapq.heappush(ready, (deadline, index, draw))
        _, index, draw = heapq.heappop(ready)
        order.append(index)
        if draw + 1 < shares[index]:
            heapq.heappush(waiting, ((draw + 1) * PERIOD // shares[index], index, draw + 1))
    return tuple(order)
