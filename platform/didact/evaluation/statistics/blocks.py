"""Several arms, each measured once under every condition: how far chance is behind the differences of their means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from didact.evaluation.statistics.samples import LEVEL, student_quantile


@dataclass(frozen=True, slots=True)
class BlockedNoise:
    """What scatters once arms and blocks are taken out."""

    standard_error: float
    """Of the difference between two arms' means; infinite with one arm or one block."""
    freedom: int
    """Degrees of freedom that it was estimated with."""

    def half_width(self, comparisons: int = 1, level: float = LEVEL) -> float:
        """How far the interval of a difference reaches to each side; infinite where nothing is known of chance.

        Args:
            comparisons: differences that are looked at, of which none may be taken for shown by chance (Bonferroni).
            level: of all intervals together.
        """
        if self.freedom < 1:
            return math.inf
        return student_quantile(1 - (1 - level) / comparisons, self.freedom) * self.standard_error


def blocked_noise(values: Sequence[Sequence[float]]) -> BlockedNoise:
    """The noise of a randomized block design (Fisher, 1935): value = arm + block + noise, the same for all arms.

    What a block, such as a seed, does to all arms alike is taken out, as pairs do for two arms; noise is estimated from
    all arms, which says more than the two that are compared. With two arms it is Student's paired test.

    Args:
        values: shape (arms, blocks), finite.

    Raises:
        ValueError: rows of different lengths, or values that are not finite.
    """
    if len({len(row) for row in values}) > 1:
        raise ValueError(f"found {[len(row) for row in values]} values of the arms; expected one of each block")
    found = np.array(values, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError("found values that are not finite; leave out arms that were not measured under every block")
    arms, blocks = found.shape if found.ndim == 2 else (0, 0)
    freedom = max(0, arms - 1) * max(0, blocks - 1)
    if freedom < 1:
        return BlockedNoise(math.inf, 0)
    rest = found - found.mean(axis=1, keepdims=True) - found.mean(axis=0) + found.mean()
    return BlockedNoise(math.sqrt(2 * float((rest**2).sum()) / freedom / blocks), freedom)
