"""Figures of single questions as arrays, checked once for everything that is computed of them."""

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

LEVEL = 0.95
"""Of intervals: in 95 of 100 samples they hold the true value."""


def as_values(values: Sequence[float], name: str = "values") -> Floats:
    """One finite number a question.

    Raises:
        ValueError: nothing, more than one dimension, or a number that is not finite; names the first.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"{name}: found shape {found.shape}; expected at least one number, one a question")
    if (bad := np.flatnonzero(~np.isfinite(found))).size:
        raise ValueError(
            f"{name}: question {bad[0]} has {found[bad[0]]}; expected finite numbers. Leave out what has no score"
        )
    return found


def as_pairs(before: Sequence[float], after: Sequence[float]) -> tuple[Floats, Floats]:
    """Values of two models on the same questions.

    Raises:
        ValueError: as `as_values`, or the two differ in length.
    """
    first, second = as_values(before, "before"), as_values(after, "after")
    if first.size != second.size:
        raise ValueError(
            f"found {first.size} values before and {second.size} after; expected both models on the same questions"
        )
    return first, second


def as_codes(labels: Sequence[Hashable] | None, count: int, name: str = "clusters") -> Codes:
    """Labels as numbers from 0; without labels every question stands alone.

    Raises:
        ValueError: not one label a question.
    """
    if labels is None:
        return np.arange(count)
    if len(labels) != count:
        raise ValueError(f"{name}: found {len(labels)} labels for {count} questions; expected one each")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)


def is_right_or_wrong(*values: Floats) -> bool:
    """Whether all values are 0 or 1."""
    return all(bool(np.isin(each, (0.0, 1.0)).all()) for each in values)


def check_share(value: float, name: str) -> float:
    """`value` itself.

    Raises:
        ValueError: not strictly between 0 and 1.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name}: found {value}; expected a number between 0 and 1, such as 0.95")
    return value


def normal_quantile(level: float) -> float:
    """How many standard errors an interval of this level reaches to each side."""
    return NormalDist().inv_cdf(0.5 + check_share(level, "level") / 2)


def student_quantile(level: float, freedom: float) -> float:
    """As `normal_quantile`, where the standard error itself was estimated with so many degrees of freedom."""
    from scipy import stats  # planning a run reads its tasks' questions and computes nothing

    return float(stats.t.ppf(0.5 + check_share(level, "level") / 2, freedom))
