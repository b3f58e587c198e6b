"""Two models on the same questions: by how much one is better, and how far chance may be behind it.

Pairs take out what makes questions easy or hard for both, so that they show differences which the two models' own
intervals hide.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from didact.evaluation.statistics.groups import averages, macro_count
from didact.evaluation.statistics.intervals import Estimate, clustered_error, effective_count
from didact.evaluation.statistics.samples import (
    LEVEL,
    Codes,
    Floats,
    as_codes,
    as_pairs,
    is_right_or_wrong,
    normal_quantile,
    student_quantile,
)

_BLOCK = 1_000_000  # resampled clusters in memory at a time
_RESAMPLES = 10_000

Method = Literal["mcnemar", "clustered", "bootstrap"]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """By how much the second model's mean lies above the first's, on the same questions."""

    difference: float
    """Mean of after - before."""
    low: float
    """Lower end of its interval; minus infinity where one cluster says nothing of chance."""
    high: float
    p_value: float
    """Of no difference, two-sided; says nothing of how large it is."""
    count: int
    """Questions."""
    clusters: int
    higher: int
    """Questions on which the second model has the higher value."""
    lower: int
    mean_square: float
    """Mean squared difference; for right and wrong answers the share of questions that changed. `smallest_difference`
    takes it."""
    effective: float
    """As many questions as would say as much if each stood alone."""
    method: Method
    level: float = LEVEL

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def compare(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = LEVEL
) -> PairedDifference:
    """What the field uses for these values: `mcnemar` for right and wrong answers, `clustered_difference` for scores.

    Raises:
        ValueError: as these.
    """
    first, second = as_pairs(before, after)
    told_apart = is_right_or_wrong(first, second)
    return (mcnemar if told_apart else clustered_difference)(before, after, clusters, level)


def mcnemar(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = LEVEL
) -> PairedDifference:
    """Right and wrong answers of two models.

    The p-value is McNemar's exact one (1947): of answers that changed, as many as were lost could be lost by tossing a
    coin. The interval is the score interval of paired shares (Tango, 1998), which has a width also where no answer
    changed, and reaches at least as far as the exact interval of the answers that changed (Clopper and Pearson, 1934):
    Tango's alone would show a gain of 4 answers in 5, which coins give one time in eight. So the interval leaves zero
    out where the p-value is below `1 - level`, and nowhere else. With clusters both are those of as many questions as
    would say as much alone, and no smaller than Student's.

    Args:
        before: 1 for right, 0 for wrong, one a question.
        after: of the second model.
        clusters: as in `mean_interval`.
        level: of the interval.

    Raises:
        ValueError: no questions, other values than 0 and 1, or lengths that differ.
    """
    first, second = as_pairs(before, after)
    if not is_right_or_wrong(first, second):
        raise ValueError(
            "McNemar's test compares right and wrong answers: expected 0 or 1 each; use compare for scores"
        )
    change, codes = second - first, as_codes(clusters, first.size)
    num_clusters = int(codes.max()) + 1
    if num_clusters == 1 < first.size:
        return _result(change, codes, (-1.0, 1.0, 1.0), "mcnemar", level)
    effective = effective_count(change, clustered_error(change, codes), num_clusters)
    part = effective / first.size
    higher, lower = float((change > 0).sum()) * part, float((change < 0).sum()) * part
    freedom = math.inf if num_clusters == first.size else num_clusters - 1
    return _result(change, codes, _of_changes(higher, lower, effective, freedom, level), "mcnemar", level)


def clustered_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = LEVEL
) -> PairedDifference:
    """Scores of two models: the mean of the paired differences (Miller, 2024, section 4) with Student's interval.

    Student's interval has no width where every cluster changed by the same, which says nothing of the next one. There
    it is that of `mcnemar`, of as many right and wrong answers as there are clusters: all of them changed, or none, by
    as much as was seen (where nothing changed, by as much as scores differ); and so is the p-value.

    Args:
        before: one number a question.
        after: of the second model.
        clusters: as in `mean_interval`.
        level: of the interval.

    Raises:
        ValueError: no questions, values that are not finite, or lengths that differ.
    """
    first, second = as_pairs(before, after)
    change, codes = second - first, as_codes(clusters, first.size)
    num_clusters, error = int(codes.max()) + 1, clustered_error(change, codes)
    mean = float(change.mean())
    if num_clusters == 1:
        low, high, p_value = -math.inf, math.inf, 1.0
    elif error > 1e-9 * abs(mean):
        half = error * student_quantile(level, num_clusters - 1)
        low, high, p_value = mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, num_clusters - 1))
    elif mean == 0:
        low, high, p_value = *nothing_changed(first, num_clusters, level), 1.0
    else:  # every cluster changed by the same, up to rounding
        surely, _, p_value = _of_changes(num_clusters, 0.0, num_clusters, num_clusters - 1, level)
        low, high = sorted((mean * surely, mean * (2 - surely)))
        if _are_shares(np.concatenate((first, second))):
            low, high = max(low, -1.0), min(high, 1.0)
    return _result(change, codes, (low, high, p_value), "clustered", level)


def macro_difference(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[str],
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Estimate:
    """By how much the second model's macro average lies above the first's, on the same questions.

    The interval is that of `averages` for the differences. For right and wrong answers it reaches at least as far as
    that of `mcnemar` for the `macro_count` questions that say as much.

    Args:
        before: one number a question.
        after: of the second model.
        groups: one name a question.
        clusters: as in `mean_interval`.
        level: of the interval.

    Raises:
        ValueError: as `clustered_difference`, or not one name a question.
    """
    first, second = as_pairs(before, after)
    change, count = second - first, macro_count(groups, clusters)
    found = averages(change.tolist(), groups, clusters, level).macro
    if is_right_or_wrong(first, second) and found.clusters > 1:
        higher, lower = (averages(side.tolist(), groups).macro.value * count for side in (change > 0, change < 0))
        low, high, _ = _of_changes(higher, lower, count, math.inf, level)
        if math.isfinite(found.low):
            low, high = max(min(low, found.low), -1.0), min(max(high, found.high), 1.0)
        return replace(found, low=low, high=high)
    if not change.any():
        low, high = nothing_changed(first, count, level)
        return replace(found, low=low, high=high)
    return found


def nothing_changed(values: Sequence[float] | Floats, count: float, level: float = LEVEL) -> tuple[float, float]:
    """Between which ends the difference may lie where none of `count` questions changed.

    Args:
        values: what either model got.
        count: as many questions as these are worth.
        level: of the interval.
    """
    found = np.asarray(values, dtype=np.float64)
    scale = 1.0 if _are_shares(found) else float(np.ptp(found)) or float(np.abs(found).max())
    low, high = _tango(0.0, 0.0, count, normal_quantile(level))
    return scale * low, scale * high


def paired_bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """Scores of two models, without any assumption on their distribution: whole clusters are drawn again and again.

    The interval holds the middle of the resampled differences (percentiles; Efron, 1979). The p-value is the share of
    resamples that lie at least as far from the observed difference as that lies from zero, counting the sample itself.
    Wants some 30 clusters; the same seed gives the same result.

    Args:
        before: one number a question.
        after: of the second model.
        clusters: as in `mean_interval`.
        level: of the interval.
        resamples: how often to draw.
        seed: of the draws.

    Raises:
        ValueError: as `clustered_difference`, or no resamples.
    """
    first, second = as_pairs(before, after)
    if resamples < 1:
        raise ValueError(f"resamples: found {resamples}; expected at least 1")
    change, codes = second - first, as_codes(clusters, first.size)
    sums, sizes = np.bincount(codes, weights=change), np.bincount(codes)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    step = max(1, _BLOCK // sums.size)
    for begin in range(0, resamples, step):
        chosen = generator.integers(sums.size, size=(min(step, resamples - begin), sums.size))
        drawn[begin : begin + step] = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    mean, tail = float(change.mean()), (1 - level) / 2
    low, high = (float(end) for end in np.quantile(drawn, (tail, 1 - tail)))
    as_far = int((np.abs(drawn - mean) >= abs(mean) - 1e-12).sum())
    if sums.size < 2:
        low, high = -math.inf, math.inf
    return _result(change, codes, (low, high, (as_far + 1) / (resamples + 1)), "bootstrap", level)


def _result(
    change: Floats, codes: Codes, interval: tuple[float, float, float], method: Method, level: float
) -> PairedDifference:
    low, high, p_value = interval
    num_clusters = int(codes.max()) + 1
    return PairedDifference(
        difference=float(change.mean()),
        low=low,
        high=high,
        p_value=p_value,
        count=change.size,
        clusters=num_clusters,
        higher=int((change > 0).sum()),
        lower=int((change < 0).sum()),
        mean_square=float((change**2).mean()),
        effective=effective_count(change, clustered_error(change, codes), num_clusters),
        method=method,
        level=level,
    )


def _are_shares(values: Floats) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _of_changes(higher: float, lower: float, count: float, freedom: float, level: float) -> tuple[float, float, float]:
    """Ends and p-value of `higher - lower` out of `count` pairs: the score statistic's, and no less than exact.

    The statistic is Student's with `freedom` degrees, the normal one where that is infinite.
    """
    changed, tail = higher + lower, (1 - level) / 2
    if changed == 0:
        return *_tango(0.0, 0.0, count, _quantile(level, freedom)), 1.0
    low, high = _tango(higher, lower, count, _quantile(level, freedom))
    least = stats.beta.ppf(tail, higher, lower + 1) if higher else 0.0
    most = stats.beta.ppf(1 - tail, higher + 1, lower) if lower else 1.0
    low, high = (min(low, (2 * least - 1) * changed / count), max(high, (2 * most - 1) * changed / count))
    rarer = min(higher, lower)
    exact = 2 * special.betainc(changed - rarer, rarer + 1, 0.5)  # so many heads or more, of a fair coin
    score = 2 * stats.t.sf(abs(higher - lower) / math.sqrt(changed), freedom)
    return float(low), float(high), min(1.0, max(float(exact), float(score)))


def _quantile(level: float, freedom: float) -> float:
    return student_quantile(level, freedom) if math.isfinite(freedom) else normal_quantile(level)


def _tango(higher: float, lower: float, count: float, reach: float) -> tuple[float, float]:
    """Where the score statistic of `higher - lower` out of `count` pairs equals `reach` (Tango, 1998)."""

    def statistic(difference: float) -> float:
        gap = higher - lower - count * difference
        linear = -higher - lower + difference * (2 * count - higher + lower)
        constant = -lower * difference * (1 - difference)
        lost = (math.sqrt(max(linear**2 - 8 * count * constant, 0.0)) - linear) / (4 * count)
        variance = count * (2 * lost + difference * (1 - difference))
        return gap / math.sqrt(variance) if variance > 1e-15 else math.copysign(math.inf, gap) if gap else 0.0

    def end(side: Literal[-1, 1]) -> float:
        def beyond(difference: float) -> float:
            return float(np.clip(statistic(difference), -1e9, 1e9)) + side * reach

        begin, stop = (higher - lower) / count, float(side)
        if beyond(stop) * side > 0 or begin == stop:
            return stop
        return float(optimize.brentq(beyond, begin, stop, xtol=1e-12))

    return end(-1), end(1)
