"""A balanced part of all combinations: fewer runs that still tell what each factor changes by itself."""

import random
from collections.abc import Sequence
from itertools import product

MOST_TO_CHOOSE_FROM = 4096
"""Combinations."""
_STARTS = 30
_WORK = 2_000_000


def fewest_runs(sizes: Sequence[int]) -> int:
    """Runs that tell every factor's levels apart: one, and one more for each level beside the first."""
    return 1 + sum(size - 1 for size in sizes)


def num_chosen(sizes: Sequence[int], share: float, num_all: int) -> int:
    """How many combinations a share of them all is."""
    return max(fewest_runs(sizes), round(share * num_all))


def chosen_combinations(sizes: Sequence[int], share: float) -> list[tuple[int, ...]]:
    """Levels by number, of each factor, in the order of the whole design; the first levels together are one of them.

    Chosen is what makes levels of different factors meet equally often: the smallest J2 of Xu (2002), "An algorithm for
    constructing orthogonal and nearly-orthogonal arrays with mixed levels and small runs", which an orthogonal array
    has where there is one. All sums are of whole numbers, so that every machine chooses the same.

    Args:
        sizes: levels of each factor.
        share: of all combinations.
    """
    import numpy as np

    everything = list(product(*map(range, sizes)))
    codes = np.array(everything)
    alike = sum(size * (codes[:, None, at] == codes[None, :, at]) for at, size in enumerate(sizes))
    weights = np.asarray(alike, dtype=np.int64) ** 2
    count = num_chosen(sizes, share, len(everything))
    found: list[tuple[int, list[int]]] = []
    for start in range(max(1, min(_STARTS, _WORK // (count * len(everything))))):
        chosen = [0, *random.Random(start).sample(range(1, len(everything)), count - 1)]
        cost = weights[:, chosen].sum(axis=1)
        improved = True
        while improved:
            improved = False
            for place, old in enumerate(chosen[1:], start=1):
                candidates = cost - weights[:, old]
                stays = int(candidates[old])
                candidates[chosen] = np.iinfo(np.int64).max
                new = int(candidates.argmin())
                if int(candidates[new]) < stays:
                    cost += weights[:, new] - weights[:, old]
                    chosen[place], improved = new, True
        found.append((int(cost[chosen].sum()), sorted(chosen)))
    return [everything[place] for place in min(found)[1]]
