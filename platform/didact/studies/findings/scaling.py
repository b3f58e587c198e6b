"""What more of something brings: a line over the logarithm of rows, rank or size."""

import math
import re
from dataclasses import dataclass

from didact.evaluation.statistics import higher_is_better
from didact.studies.additive import additive_terms, is_additive
from didact.studies.contrasts import Contrast, Term, contrast
from didact.studies.figures import Figure, figure_of
from didact.studies.results import StudyResult
from didact.studies.tables import counterparts
from didact.studies.values import scatter_of

_FEWEST = 3
"""Levels that a line is fitted to."""
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9}


@dataclass(frozen=True, slots=True)
class Scaling:
    """A factor whose levels are amounts, and what the metric does as they grow."""

    factor: str
    metric: str
    points: tuple[tuple[float, Figure], ...]
    """(amount, figure), amounts ascending."""
    per_doubling: Contrast
    """Least-squares slope over the logarithm to base 2, positive where more is better."""

    def fitted(self, amount: float) -> float:
        """The metric that the line gives at an amount."""
        places = [math.log2(each) for each, _ in self.points]
        values = [figure.value for _, figure in self.points]
        slope = self.per_doubling.value * (1 if higher_is_better(self.metric) else -1)
        return sum(values) / len(values) + slope * (math.log2(amount) - sum(places) / len(places))

    def __str__(self) -> str:
        low, high = self.points[0][0], self.points[-1][0]
        verdict = "" if self.per_doubling.shown else ", which chance explains"
        return (
            f"{self.factor} from {low:g} to {high:g}, {self.metric.removeprefix('eval/')}: {self.per_doubling} for the "
            f"better with each doubling{verdict}"
        )


def amount_of(level: str) -> float | None:
    """The amount that a level's name says: `320`, `r16`, `1.5k`, `7B`; None where it says none above zero."""
    found = re.fullmatch(r"[A-Za-z_]*?(\d+(?:\.\d+)?(?:e-?\d+)?)([kKmMbB]?)", level)
    amount = float(found[1]) * _UNITS[found[2].lower()] if found else 0.0
    return amount if amount > 0 else None


def scalings_of(result: StudyResult) -> list[Scaling]:
    """Of every factor with three or more levels that are amounts, and of every metric that all of them have."""
    found = []
    for factor, levels in result.spec.factors.items():
        amounts = {level: amount_of(level) for level in levels}
        if None in amounts.values():
            continue
        cells, _ = counterparts(result, factor, tuple(levels), {})
        known = sorted((amount, level) for level, amount in amounts.items() if amount is not None and cells[level])
        if len({amount for amount, _ in known}) < _FEWEST:
            continue
        places = [math.log2(amount) for amount, _ in known]
        mean = sum(places) / len(places)
        spread = sum((place - mean) ** 2 for place in places)
        weights = {level: (at - mean) / spread for at, (_, level) in zip(places, known, strict=True)}
        if is_additive(result):
            terms = additive_terms(result, factor, weights) or []
        else:
            terms = [Term(weight, cells[level]) for level, weight in weights.items()]
        for metric in result.metrics():
            slope = contrast(terms, metric, scatter_of(result, metric)) if terms else None
            figures = [(amount, figure_of(cells[level], metric)) for amount, level in known]
            points = tuple((amount, figure) for amount, figure in figures if figure is not None)
            if slope is not None and len(points) == len(known):
                found.append(Scaling(factor, metric, points, slope))
    return found
