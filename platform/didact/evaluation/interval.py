"""How far a share of correct answers may be off by chance."""

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(num_correct: int, num_items: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson, 1927), within [0, 1] also when all or none are correct.

    Raises:
        ValueError: not `0 <= num_correct <= num_items` with at least one item.
    """
    if not 0 <= num_correct <= num_items or num_items == 0:
        raise ValueError(f"found {num_correct} correct of {num_items}; expected at least one item, and no more correct")
    share = num_correct / num_items
    scale = 1 + _Z**2 / num_items
    centre = (share + _Z**2 / (2 * num_items)) / scale
    half = _Z / scale * math.sqrt(share * (1 - share) / num_items + _Z**2 / (4 * num_items**2))
    return max(0.0, centre - half), min(1.0, centre + half)
