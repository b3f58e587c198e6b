"""What figures of base and adapter say: which way is better, and how far chance may be behind it."""

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


def higher_is_better(metric: str) -> bool:
    """Whether more is better: not for losses."""
    return metric.rpartition("/")[2] != "loss"


def improvement(metric: str, base: float, adapter: float) -> float:
    """By how much the adapter is better than the base, in the metric's own unit; negative where it is worse."""
    return adapter - base if higher_is_better(metric) else base - adapter
