"""How far chance may be behind a share or a mean of many questions."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from didact.evaluation.statistics.samples import (
    LEVEL,
    Codes,
    Floats,
    as_codes,
    as_values,
    is_right_or_wrong,
    normal_quantile,
    student_quantile,
)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over questions with its interval."""

    value: float
    low: float
    """Lower end of the interval; minus infinity where one question, or one cluster, says nothing of chance."""
    high: float
    standard_error: float
    """Of `value`, with clusters counted as one; infinite as `low`."""
    count: int
    """Questions."""
    clusters: int
    """Questions that share a passage count as one here; equal to `count` where every question stands alone."""
    level: float = LEVEL


def wilson_interval(num_correct: float, num_items: float, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a share (Wilson, 1927), within [0, 1] also when all or none are correct.

    Args:
        num_correct: how many of the items; a fraction where items weigh less than one.
        num_items: how many there are.
        level: of the interval.

    Raises:
        ValueError: not `0 <= num_correct <= num_items` with more than no item.
    """
    return _wilson(num_correct, num_items, normal_quantile(level))


def mean_interval(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    *,
    share: bool | None = None,
) -> Estimate:
    """The mean over questions with its interval.

    The standard error takes questions of one cluster as drawn together (Miller, 2024, *Adding Error Bars to Evals*,
    arXiv 2411.00640), multiplied by C/(C-1) for C clusters, as inspect_ai does. The interval is Student's with C-1
    degrees of freedom. For right and wrong answers it is Wilson's, over as many questions as would have the same
    standard error if each stood alone, so that it stays in [0, 1] and has a width also when all are right. Shares that
    are all the same have Wilson's too, which no values from 0 to 1 of this mean spread beyond, and so have other values
    that are said to be shares, such as a judge's scores from 0 to 1.

    Args:
        values: one number a question.
        clusters: one label a question; the same label, drawn together. None: every question stands alone.
        level: of the interval.
        share: whether no value can lie outside [0, 1]; None where the values alone are to tell.

    Raises:
        ValueError: no questions, values that are not finite, or not one label a question.
    """
    found = as_values(values)
    codes = as_codes(clusters, found.size)
    mean, error, num_clusters = float(found.mean()), clustered_error(found, codes), int(codes.max()) + 1
    if share is not False and is_right_or_wrong(found):
        effective = effective_count(found, error, num_clusters)
        reach = normal_quantile(level) if num_clusters == found.size else _student(level, num_clusters)
        low, high = _wilson(mean * effective, effective, reach) if math.isfinite(reach) else (0.0, 1.0)
    elif share is not False and error <= 1e-9 * mean and mean <= 1 and num_clusters > 1:
        low, high = _wilson(mean * num_clusters, num_clusters, _student(level, num_clusters))
    else:
        low, high = ends(mean, error, _student(level, num_clusters), share=share)
    return Estimate(mean, low, high, error, found.size, num_clusters, level)


def ends(mean: float, error: float, reach: float, *, share: bool | None) -> tuple[float, float]:
    """The interval of a mean: `reach` standard errors to both sides, or for a share Wilson's of the same error."""
    if error == 0:
        return mean, mean
    if share and 0 < mean < 1 and math.isfinite(reach):
        count = mean * (1 - mean) / error**2
        return _wilson(mean * count, count, reach)
    return mean - reach * error, mean + reach * error


def clustered_error(values: Floats, codes: Codes) -> float:
    """Standard error of the mean with clusters (Miller, 2024, section 2.2); infinite for a single cluster."""
    sums = np.bincount(codes, weights=values - values.mean())
    if sums.size < 2:
        return math.inf
    return math.sqrt(float(sums @ sums) * sums.size / (sums.size - 1)) / values.size


def effective_count(values: Floats, error: float, num_clusters: int) -> float:
    """As many questions as would have this standard error if each stood alone: from one a cluster to all.

    Where all values are equal nothing is known of how clusters hang together, and each counts as one question.
    """
    alone = float(values.var(ddof=1)) / values.size if values.size > 1 else 0.0
    if num_clusters == values.size:
        return float(values.size)
    if alone == 0 or not math.isfinite(error):
        return float(num_clusters)
    return float(np.clip(values.size * alone / error**2, 1.0, values.size)) if error > 0 else float(values.size)


def _student(level: float, num_clusters: int) -> float:
    return student_quantile(level, num_clusters - 1) if num_clusters > 1 else math.inf


def _wilson(num_correct: float, num_items: float, reach: float) -> tuple[float, float]:
    if not 0 <= num_correct <= num_items or num_items <= 0:
        raise ValueError(f"found {num_correct} correct of {num_items}; expected at least one item, and no more correct")
    share = num_correct / num_items
    scale = 1 + reach**2 / num_items
    centre = (share + reach**2 / (2 * num_items)) / scale
    half = reach / scale * math.sqrt(share * (1 - share) / num_items + reach**2 / (4 * num_items**2))
    # Exactly the ends where none or all are right, whatever rounding makes of the difference.
    low = max(0.0, centre - half) if num_correct > 0 else 0.0
    return low, min(1.0, centre + half) if num_correct < num_items else 1.0
