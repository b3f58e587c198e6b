"""What else than quality a judge's verdicts go with."""

from collections.abc import Sequence

from didact.evaluation.asks import Identity


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where one side does not vary or under 3 pairs."""
    if len(first) < 3:
        return None
    return _correlation(_ranks(first), _ranks(second))


def self_preference(judge: Identity, model: Identity, rival: Identity, win_rate: float | None) -> float | None:
    """How much more often than not the side wins that stands on the judge's own base.

    Args:
        judge: who compares.
        model: whose wins are counted.
        rival: whom it is compared with.
        win_rate: of the model, ties as halves.

    Returns:
        From -0.5 to 0.5; None where the judge's base is not known, or both sides or neither stand on it. A side may
        also win for being better: another judge tells.
    """
    base = judge.digests.get("base")
    mine, theirs = (base is not None and each.digests.get("base") == base for each in (model, rival))
    if win_rate is None or mine == theirs:
        return None
    return win_rate - 0.5 if mine else 0.5 - win_rate


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda place: values[place])
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2
        start = end + 1
    return ranks


def _correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    mean_a, mean_b = sum(first) / len(first), sum(second) / len(second)
    both = sum((a - mean_a) * (b - mean_b) for a, b in zip(first, second, strict=True))
    one, other = sum((a - mean_a) ** 2 for a in first), sum((b - mean_b) ** 2 for b in second)
    return None if one == 0 or other == 0 else both / (one * other) ** 0.5
