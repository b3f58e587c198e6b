"""Many tasks at once: with 20 of them, one is "significant" by chance alone."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy import stats

Correction = Literal["holm", "benjamini_hochberg"]


def corrected(p_values: Mapping[str, float], method: Correction = "holm") -> dict[str, float]:
    """P-values that may be held against one limit although there are many.

    Args:
        p_values: by name, such as one a task.
        method: `holm` (1979): the chance of a single wrong claim among all stays below the limit.
            `benjamini_hochberg` (1995): the share of wrong ones among the claims does, which finds more.

    Returns:
        By the same names in the same order; never below the p-value itself.

    Raises:
        ValueError: a p-value outside [0, 1], or an unknown method.
    """
    if method not in ("holm", "benjamini_hochberg"):
        raise ValueError(f"method: found {method!r}; expected holm or benjamini_hochberg")
    for name, value in p_values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"p-value of {name}: found {value}; expected a number from 0 to 1")
    if not p_values:
        return {}
    found = np.array(list(p_values.values()))
    if method == "benjamini_hochberg":
        adjusted = stats.false_discovery_control(found, method="bh")
    else:
        order = np.argsort(found, kind="stable")
        factors = np.arange(found.size, 0, -1)
        adjusted = np.empty(found.size)
        adjusted[order] = np.minimum(np.maximum.accumulate(found[order] * factors), 1.0)
    return dict(zip(p_values, adjusted.tolist(), strict=True))
