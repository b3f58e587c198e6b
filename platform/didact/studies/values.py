"""A cell's figure, and how far figures move from one training to the next.

The latter of all runs of a study together, since each cell has few.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from didact.evaluation.report import ADAPTER, BASE
from didact.studies.results import CellResult, StudyResult

Of = Literal["adapter", "base", "change"]
"""What was trained, the base before it was, or the difference that training made."""
_LEVEL = 0.95


def value_of(cell: CellResult, metric: str, of: Of = "adapter") -> float | None:
    """The metric of a cell's adapter, or what else is asked for; None where it was not measured."""
    if cell.report is None:
        return None
    before, after = (cell.report.metrics(role).get(metric, math.nan) for role in (BASE, ADAPTER))
    found = {"adapter": after, "base": before, "change": after - before}[of]
    return found if math.isfinite(found) else None


@dataclass(frozen=True, slots=True)
class Scatter:
    """Of one metric."""

    deviation: float
    """Standard deviation of a run's figure around what its levels and its seed give."""
    freedom: int
    """Degrees of freedom that it was estimated with."""

    def reach(self, weights: Sequence[float], num_runs: int) -> float:
        """Half the 95% interval of a sum of means over runs, with these weights."""
        from scipy.stats import t

        return float(t.ppf((1 + _LEVEL) / 2, self.freedom)) * self._error(weights, num_runs)

    def p_value(self, value: float, weights: Sequence[float], num_runs: int) -> float:
        """Of such a sum, two-sided."""
        from scipy.stats import t

        return float(2 * t.sf(abs(value) / self._error(weights, num_runs), self.freedom))

    def _error(self, weights: Sequence[float], num_runs: int) -> float:
        return self.deviation * math.sqrt(sum(weight**2 for weight in weights) / num_runs)


def scatter_of(result: StudyResult, metric: str, of: Of = "adapter") -> Scatter | None:
    """From the combinations that were measured with every seed: what neither levels nor seed explain.

    A combination's mean and a seed's mean are taken off (two-way layout with one run a place), so that C combinations
    and S seeds leave (C - 1)(S - 1) degrees of freedom, where a single pair of cells has S - 1.

    Args:
        result: of the study.
        metric: such as `eval/mmcu/accuracy`.
        of: what of the cells is meant.

    Returns:
        None with fewer than two such combinations or seeds, or where nothing scatters.
    """
    by_levels: dict[tuple[str, ...], dict[int, float]] = {}
    for cell in result.measured:
        value = value_of(cell, metric, of)
        if value is not None:
            by_levels.setdefault(tuple(cell.levels.values()), {})[cell.seed] = value
    seeds = result.spec.seeds
    rows = [[known[seed] for seed in seeds] for known in by_levels.values() if all(seed in known for seed in seeds)]
    if len(rows) < 2 or len(seeds) < 2:
        return None
    of_rows = [sum(row) / len(row) for row in rows]
    of_seeds = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    grand = sum(of_rows) / len(rows)
    squares = sum(
        (value - of_row - of_seed + grand) ** 2
        for row, of_row in zip(rows, of_rows, strict=True)
        for value, of_seed in zip(row, of_seeds, strict=True)
    )
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    deviation = math.sqrt(squares / freedom)
    return Scatter(deviation, freedom) if deviation > 1e-12 else None


def only_seeds_differ(cells: Sequence[CellResult]) -> bool:
    """Whether cells are one combination, trained several times."""
    return len({tuple(cell.levels.values()) for cell in cells}) == 1
