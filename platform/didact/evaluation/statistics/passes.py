"""How far two passes of a judge agree."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from didact.evaluation.statistics.intervals import wilson_interval
from didact.evaluation.statistics.samples import LEVEL, Floats, as_codes, normal_quantile

_WEIGHTS = {"none": 0, "linear": 1, "quadratic": 2}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two verdicts on the same answers."""

    equal: float
    """Share of answers with the same verdict twice."""
    low: float
    """Ends of Wilson's interval of `equal`."""
    high: float
    kappa: float | None
    """Agreement beyond chance: 1 is full, 0 what chance gives. None where both passes gave one verdict only."""
    kappa_low: float | None
    kappa_high: float | None
    count: int
    """Answers."""
    level: float = LEVEL


def agreement(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    weights: Literal["none", "linear", "quadratic"] = "none",
    level: float = LEVEL,
) -> Agreement:
    """Share of equal verdicts, and Cohen's kappa (1960; weighted 1968) with the interval of Fleiss et al. (1969).

    Args:
        first: verdicts of the first pass: labels, or numbers.
        second: of the second pass, on the same answers in the same order.
        weights: `none`: verdicts are equal or not. `linear`, `quadratic`: numbers that lie close agree in part, by
            their distance or its square.
        level: of the intervals.

    Raises:
        ValueError: no answers, lengths that differ, weights for verdicts that are no numbers, or unknown weights.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"found {len(first)} and {len(second)} verdicts; expected two on each of at least one answer")
    if weights not in _WEIGHTS:
        raise ValueError(f"weights: found {weights!r}; expected one of {', '.join(_WEIGHTS)}")
    count = len(first)
    codes = as_codes([*first, *second], 2 * count)
    values = list(dict.fromkeys([*first, *second]))
    table = np.zeros((len(values), len(values)))
    np.add.at(table, (codes[:count], codes[count:]), 1 / count)
    num_equal = round(float(np.trace(table)) * count)
    low, high = wilson_interval(num_equal, count, level)
    kappa, error = _kappa(table, _credit(values, _WEIGHTS[weights]), count)
    if kappa is None:
        return Agreement(num_equal / count, low, high, None, None, None, count, level)
    half = normal_quantile(level) * error
    ends = max(-1.0, kappa - half), min(1.0, kappa + half)
    return Agreement(num_equal / count, low, high, kappa, *ends, count, level)


def _credit(values: Sequence[Hashable], exponent: int) -> Floats:
    """How far each pair of verdicts agrees, from 0 to 1."""
    if not exponent:
        return np.eye(len(values))
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise ValueError(
            "weights: only numbers lie near or far; expected finite numbers as verdicts, or weights='none'"
        )
    numbers: npt.NDArray[np.float64] = np.array(values, dtype=np.float64)
    distance = np.abs(numbers[:, None] - numbers[None, :]) ** exponent
    return np.asarray(1 - distance / max(float(distance.max()), 1e-300))


def _kappa(table: Floats, credit: Floats, count: int) -> tuple[float | None, float]:
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    seen, by_chance = float((table * credit).sum()), float(rows @ credit @ columns)
    if 1 - by_chance < 1e-12:
        return None, 0.0
    kappa = (seen - by_chance) / (1 - by_chance)
    margins = (credit @ columns)[:, None] + (rows @ credit)[None, :]
    spread = float((table * (credit - margins * (1 - kappa)) ** 2).sum()) - (kappa - by_chance * (1 - kappa)) ** 2
    return kappa, math.sqrt(max(spread, 0.0) / count) / (1 - by_chance)
