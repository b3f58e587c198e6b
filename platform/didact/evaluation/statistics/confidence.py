"""Whether a model is right as often as it is sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from didact.evaluation.statistics.samples import as_pairs, is_right_or_wrong

_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of about the same confidence."""

    low: float
    high: float
    """Confidences lie in (low, high]; in the first bin also at `low`."""
    count: int
    confidence: float
    """Their mean."""
    accuracy: float
    """Share of them that is right."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence and accuracy lie apart."""

    error: float
    """Expected calibration error: mean distance over the bins, each weighing as many answers as it has."""
    largest: float
    """The largest distance of a bin (maximum calibration error)."""
    brier: float
    """Mean squared distance of confidence and outcome (Brier, 1950), which needs no bins."""
    count: int
    bins: tuple[Bin, ...]
    """Those that hold answers, from the lowest confidence."""


def calibration(
    confidences: Sequence[float],
    correct: Sequence[float],
    *,
    bins: int = _BINS,
    spaced: Literal["evenly", "by_count"] = "evenly",
) -> Calibration:
    """Expected calibration error (Naeini et al., 2015; Guo et al., 2017, arXiv 1706.04599) with its bins.

    Args:
        confidences: probability that the model gave to its own answer, one a question.
        correct: 1 where it was right, 0 where not.
        bins: how many.
        spaced: `evenly` over [0, 1], or `by_count`, so that each holds as many answers.

    Raises:
        ValueError: no questions, lengths that differ, a confidence outside [0, 1], an outcome that is neither 0 nor 1,
            or no bins.
    """
    sure, right = as_pairs(confidences, correct)
    if bins < 1:
        raise ValueError(f"bins: found {bins}; expected at least 1")
    if (bad := np.flatnonzero((sure < 0) | (sure > 1))).size:
        raise ValueError(f"confidences: question {bad[0]} has {sure[bad[0]]}; expected a probability from 0 to 1")
    if not is_right_or_wrong(right):
        raise ValueError("correct: expected 1 or 0, one a question")
    edges = np.linspace(0.0, 1.0, bins + 1)
    if spaced == "by_count":
        edges = np.unique(np.quantile(sure, edges))
        edges = edges if edges.size > 1 else np.array([sure[0], sure[0]])
    places = np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, edges.size - 2)
    found = tuple(
        Bin(
            float(edges[place]),
            float(edges[place + 1]),
            int(inside.sum()),
            float(sure[inside].mean()),
            float(right[inside].mean()),
        )
        for place in range(edges.size - 1)
        if (inside := places == place).any()
    )
    gaps = [abs(each.confidence - each.accuracy) for each in found]
    error = sum(each.count * gap for each, gap in zip(found, gaps, strict=True)) / sure.size
    return Calibration(error, max(gaps), float(((sure - right) ** 2).mean()), sure.size, found)
