"""What each level changes by itself where combinations are a part of all: every factor's levels, told at once."""

from collections.abc import Mapping

import numpy as np

from didact.studies.contrasts import Term
from didact.studies.results import CellResult, StudyResult

_NOTHING = 1e-9


def is_additive(result: StudyResult) -> bool:
    """Whether levels are told by the sum of what each changes, since hardly any two runs differ in one factor alone."""
    return result.spec.design == "fractional"


def additive_terms(result: StudyResult, factor: str, weights: Mapping[str, float]) -> list[Term] | None:
    """Runs and how much each counts in a weighted sum of a factor's levels, with the other factors' levels taken off.

    Least squares over the combinations that were measured with every seed; how factors act together is taken for
    nothing.

    Args:
        result: of the study.
        factor: that is asked for.
        weights: level -> its weight; they add up to zero.

    Returns:
        None where the combinations that were measured do not tell these levels apart.
    """
    cells = _by_combination(result)
    if not cells:
        return None
    names = [(name, level) for name, levels in result.spec.factors.items() for level in list(levels)[1:]]
    columns = [[1.0, *(float(dict(levels)[name] == level) for name, level in names)] for levels in cells]
    model = np.array(columns)
    asked = np.array([0.0, *(weights.get(level, 0.0) if name == factor else 0.0 for name, level in names)])
    solution = asked @ np.linalg.pinv(model)
    if np.abs(solution @ model - asked).max() > _NOTHING:
        return None
    return [
        Term(float(weight), runs)
        for weight, runs in zip(solution, cells.values(), strict=True)
        if abs(weight) > _NOTHING
    ]


def _by_combination(result: StudyResult) -> dict[tuple[tuple[str, str], ...], list[CellResult]]:
    """Levels -> runs in the order of the seeds, of combinations that all seeds measured."""
    found: dict[tuple[tuple[str, str], ...], list[CellResult]] = {}
    for cell in sorted(result.measured, key=lambda each: result.spec.seeds.index(each.seed)):
        found.setdefault(tuple(cell.levels.items()), []).append(cell)
    return {levels: runs for levels, runs in found.items() if len(runs) == len(result.spec.seeds)}
