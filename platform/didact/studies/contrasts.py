"""Sums of figures with weights, and how far chance is behind them: slopes, shares, what a set adds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from didact.evaluation.statistics import clustered_difference, higher_is_better
from didact.studies.figures import passages, question_values
from didact.studies.results import CellResult
from didact.studies.values import Of, Scatter, only_seeds_differ, value_of

_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class Term:
    """Cells and how much they count."""

    weight: float
    cells: Sequence[CellResult]
    """In the order of the other terms' cells: what stands in one place differs in nothing else."""
    of: Of = "adapter"


@dataclass(frozen=True, slots=True)
class Contrast:
    """A weighted sum, positive where it is for the better, also for metrics of which less is better."""

    value: float
    low: float
    """Lower end of the 95% interval."""
    high: float
    num_runs: int
    """Of each term."""
    num_questions: int
    """0 for a metric that is no mean over questions."""
    p_value: float
    """Two-sided, of the span that the interval is of."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{_signed(self.value)} [{_signed(self.low)} to {_signed(self.high)}]"


def _signed(value: float) -> str:
    """In few digits; what only rounding left of zero is zero."""
    return f"{value if abs(value) > _NOTHING else 0.0:+.3g}"


def contrast(terms: Sequence[Term], metric: str, scatter: Scatter | None = None) -> Contrast | None:
    """The sum with its interval: over questions or over runs, whichever is wider; with one run each, over questions.

    Args:
        terms: at least one, each with the same number of cells.
        metric: such as `eval/mmcu/accuracy`.
        scatter: of the metric over the study's runs, for terms of one combination each.

    Returns:
        None where a figure is missing, or nothing tells how far chance reaches.
    """
    sign = 1.0 if higher_is_better(metric) else -1.0
    runs: list[float] = []
    for each in zip(*(term.cells for term in terms), strict=True):
        values = [value_of(cell, metric, term.of) for term, cell in zip(terms, each, strict=True)]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        runs.append(sign * sum(term.weight * value for term, value in zip(terms, known, strict=True)))
    if not runs:
        return None
    asked = [question_values(term.cells, metric, term.of) for term in terms]
    common = [key for key in asked[0] if all(key in each for each in asked)]
    value, spans = sum(runs) / len(runs), []
    if common:
        weighted = [(term.weight, each) for term, each in zip(terms, asked, strict=True)]
        of_questions = [sign * sum(weight * each[key] for weight, each in weighted) for key in common]
        value = sum(of_questions) / len(of_questions)
        spans.append(_around(of_questions, passages(terms[0].cells[0], dict.fromkeys(common, 0.0))))
    if scatter is not None and all(only_seeds_differ(term.cells) for term in terms):
        # A base is not trained: it does not scatter.
        weights = [term.weight for term in terms if term.of != "base"]
        reach = scatter.reach(weights, len(runs))
        spans.append((-reach, reach, scatter.p_value(value, weights, len(runs))))
    elif len(runs) > 1:
        spans.append(_around(runs))
    spans = [span for span in spans if all(map(math.isfinite, span))]
    if not spans:
        return None
    low, high, p_value = max(spans, key=lambda span: span[1] - span[0])
    value = round(value, 12)  # sums that cancel leave something like 1e-17
    return Contrast(value, value + low, value + high, len(runs), len(common), p_value)


def _around(sums: Sequence[float], clusters: Sequence[str] | None = None) -> tuple[float, float, float]:
    """The ends of a mean's interval, from the mean, and its p-value. As differences from zero: sums have no bounds."""
    found = clustered_difference([0.0] * len(sums), sums, clusters)
    return found.low - found.difference, found.high - found.difference, found.p_value
