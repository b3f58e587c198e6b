"""Averages over classes: each class the same weight (macro), or each question (weighted)."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from didact.evaluation.statistics.intervals import Estimate, ends, mean_interval, wilson_interval
from didact.evaluation.statistics.samples import LEVEL, Codes, Floats, as_codes, as_values, student_quantile


@dataclass(frozen=True, slots=True)
class Averages:
    """Both averages of one task, which may tell opposite stories where classes differ in size."""

    macro: Estimate
    """Mean of the groups' means: every group weighs the same."""
    weighted: Estimate
    """Mean over all questions: a group weighs as many questions as it has."""
    groups: Mapping[str, Estimate]
    """In the order in which groups first occur."""


def averages(
    values: Sequence[float],
    groups: Sequence[str],
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    *,
    share: bool | None = None,
) -> Averages:
    """Means by group, and both averages over them, with intervals.

    The macro average's standard error adds up those of the groups, with clusters that reach over several groups
    counted as one. A group with a single question, or a single cluster, takes the spread of the others. Its interval
    is Student's with the degrees of freedom of Satterthwaite (1946). Where no group has a spread, as where all answers
    are wrong, shares have Wilson's over `macro_count` questions, and other values none.

    Args:
        values: one number a question.
        groups: one name a question.
        clusters: as in `mean_interval`.
        level: of the intervals.
        share: as in `mean_interval`.

    Raises:
        ValueError: no questions, values that are not finite, or not one name or label a question.
    """
    found = as_values(values)
    of_group, of_cluster = as_codes(groups, found.size, "groups"), as_codes(clusters, found.size)
    labels = of_cluster.tolist()
    by_group = {
        str(name): mean_interval(
            [value for value, mine in zip(found.tolist(), of_group, strict=True) if mine == number],
            [label for label, mine in zip(labels, of_group, strict=True) if mine == number],
            level,
            share=share,
        )
        for number, name in enumerate(dict.fromkeys(groups))
    }
    weighted = mean_interval(found.tolist(), labels, level, share=share)
    return Averages(_macro(found, of_group, of_cluster, level, share), weighted, by_group)


def _macro(values: Floats, of_group: Codes, of_cluster: Codes, level: float, share: bool | None) -> Estimate:
    sizes = np.bincount(of_group)
    means = np.bincount(of_group, weights=values) / sizes
    num_clusters = np.array([np.unique(of_cluster[of_group == group]).size for group in range(sizes.size)])
    residuals = values - means[of_group]
    several = num_clusters > 1
    value, total = float(means.mean()), int(of_cluster.max()) + 1
    if not several.any():
        return Estimate(value, -math.inf, math.inf, math.inf, values.size, total, level)
    widened = np.sqrt(np.where(several, num_clusters / np.maximum(num_clusters - 1, 1), 0.0))
    shares = residuals * (widened / (sizes * sizes.size))[of_group]
    sums = np.bincount(of_cluster, weights=shares)
    spread = float((residuals**2).sum() / max(values.size - sizes.size, 1))
    lonely = int((~several).sum()) * spread / sizes.size**2
    variance = float(sums @ sums) + lonely
    reach = 0.0
    if variance > 0:
        own = np.array(
            [
                float((np.bincount(of_cluster[of_group == g], shares[of_group == g]) ** 2).sum())
                for g in np.flatnonzero(several)
            ]
        )
        freedom = (own.sum() + lonely) ** 2 / max(float((own**2 / (num_clusters[several] - 1)).sum()), 1e-300)
        reach = student_quantile(level, max(1.0, min(freedom, float(total))))
    error = math.sqrt(variance)
    low, high = ends(value, error, reach, share=share)
    if error <= 1e-9 * abs(value):
        low, high = -math.inf, math.inf
        if share:
            low, high = wilson_interval(value * (count := _harmonic(num_clusters)), count, level)
    return Estimate(value, low, high, error, values.size, total, level)


def macro_count(groups: Sequence[str], clusters: Sequence[Hashable] | None = None) -> float:
    """As many questions as would say as much of a plain mean as these do of the macro average: of two groups of 4 and
    of 36, not 40 but 14.4, since the mean of the small one counts half and is known no better.

    Args:
        groups: one name a question.
        clusters: as in `mean_interval`.
    """
    of_group, of_cluster = as_codes(groups, len(groups), "groups"), as_codes(clusters, len(groups))
    sizes = np.array([np.unique(of_cluster[of_group == group]).size for group in range(int(of_group.max()) + 1)])
    return _harmonic(sizes)


def _harmonic(sizes: Codes) -> float:
    return float(sizes.size**2 / (1 / sizes).sum())
