"""What else than quality a judge's verdicts go with."""

from collections.abc import Sequence

from didact.evaluation.asks import Identity


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None where one side does not vary or under 3 pairs."""
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    from scipy.stats import spearmanr  # takes a second to load

    return float(spearmanr(first, second).statistic)


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
