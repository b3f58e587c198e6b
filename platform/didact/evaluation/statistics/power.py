"""How many questions are enough: what a comparison of two models on the same questions can show."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from scipy import optimize

from didact.evaluation.statistics.samples import LEVEL, check_share, normal_quantile

_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Reach:
    """So many questions show a true difference of this size as often as `power` says."""

    questions: int
    difference: float
    """Smallest true difference of two means that is shown; infinite where so few questions show none at all."""
    power: float
    """Chance that the interval of a difference of this size leaves zero out."""
    level: float
    """Of that interval."""
    mean_square: float
    """Assumed mean squared difference of single questions."""


def questions_needed(
    difference: float,
    mean_square: float,
    *,
    right_or_wrong: bool = True,
    design_effect: float = 1.0,
    power: float = _POWER,
    level: float = LEVEL,
) -> Reach:
    """How many questions show a difference (Connor, 1987, Biometrics 43, for right and wrong answers, with the
    correction for continuity that makes it hold for McNemar's exact test).

    Args:
        difference: between the means of the two models.
        mean_square: mean squared difference of single questions: for right and wrong answers the share on which the
            models differ (discordance), as `PairedDifference.mean_square` has it.
        right_or_wrong: whether values are 0 or 1. They cannot differ in the mean by more than in single questions, so
            that a smaller `mean_square` is taken for as large as it must be.
        design_effect: how many questions of a cluster say as much as one that stands alone (count / effective).
        power: wanted chance that the difference is shown.
        level: of the interval that must leave zero out.

    Raises:
        ValueError: a number out of its range.
    """
    _check(mean_square, design_effect, power)
    if not 0 < abs(difference) < math.inf:
        raise ValueError(f"difference: found {difference}; expected a number other than 0")
    if right_or_wrong and abs(difference) > 1:
        raise ValueError(f"difference: found {difference}; shares of right answers differ by 1 at most")
    needed = _needed(abs(difference), mean_square, right_or_wrong, (normal_quantile(level), _quantile(power)))
    return Reach(math.ceil(needed * design_effect - 1e-9), abs(difference), power, level, mean_square)


def smallest_difference(
    questions: int,
    mean_square: float,
    *,
    right_or_wrong: bool = True,
    design_effect: float = 1.0,
    power: float = _POWER,
    level: float = LEVEL,
) -> Reach:
    """The smallest difference that so many questions show: the inverse of `questions_needed`, with its arguments.

    Raises:
        ValueError: a number out of its range.
    """
    _check(mean_square, design_effect, power)
    if questions < 1:
        raise ValueError(f"questions: found {questions}; expected at least 1")
    effective = questions / design_effect
    quantiles = normal_quantile(level), _quantile(power)

    def missing(difference: float) -> float:
        return _needed(difference, mean_square, right_or_wrong, quantiles) - effective

    # Beyond this one single changes all point the same way, and more of it makes nothing easier to see.
    most = 1.0 if right_or_wrong else math.sqrt(mean_square) * (sum(quantiles) + 1)
    if missing(most) > 0:
        return Reach(questions, math.inf, power, level, mean_square)
    found = optimize.brentq(missing, most * 1e-9, most, xtol=1e-12)
    return Reach(questions, float(found), power, level, mean_square)


def _needed(difference: float, mean_square: float, right_or_wrong: bool, quantiles: tuple[float, float]) -> float:
    square = max(mean_square, difference if right_or_wrong else difference**2)
    to_show, to_find = quantiles
    reach = to_show * math.sqrt(square) + to_find * math.sqrt(square - difference**2)
    if not right_or_wrong:
        return (reach / difference) ** 2
    # Answers change by whole ones: n * difference - 1 has to reach `reach * sqrt(n)`.
    return ((reach + math.sqrt(reach**2 + 4 * difference)) / (2 * difference)) ** 2


def _quantile(power: float) -> float:
    return NormalDist().inv_cdf(check_share(power, "power"))


def _check(mean_square: float, design_effect: float, power: float) -> None:
    if not 0 < mean_square < math.inf:
        raise ValueError(f"mean_square: found {mean_square}; expected a number above 0")
    if not 1 <= design_effect < math.inf:
        raise ValueError(f"design_effect: found {design_effect}; expected at least 1")
    if not 0.5 <= power < 1:
        raise ValueError(f"power: found {power}; expected from 0.5 to below 1, such as 0.8")
