"""Figures of one or several cells: a mean with its interval, and two groups of cells beside each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from didact.evaluation import EvalReport
from didact.evaluation.report import ADAPTER, BASE
from didact.evaluation.statistics import (
    PairedDifference,
    clustered_difference,
    compare,
    higher_is_better,
    is_share,
    mean_interval,
)
from didact.studies.results import CellResult
from didact.studies.values import Of, Scatter, only_seeds_differ, value_of

_PREFIX = "eval/"
_PAIR = (-1.0, 1.0)
Questions = dict[tuple[str, str], float]
"""(task, question) -> value."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric over some cells."""

    value: float
    low: float | None
    """Lower end of the 95% interval over questions; None for a metric that is no mean over questions."""
    high: float | None
    num_cells: int
    least: float
    """Of the cells' own values, the smallest; together with `most` the scatter between runs."""
    most: float


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much cells are better than others, positive where they are, also for metrics of which less is better."""

    value: float
    low: float
    high: float
    p_value: float
    num_pairs: int
    num_questions: int
    """0 for a metric that is no mean over questions."""

    @property
    def shown(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def figure_of(cells: Sequence[CellResult], metric: str, of: Of = "adapter") -> Figure | None:
    """The mean over cells; None where one of them has no such figure.

    With questions the interval is over them, each question's answers of all cells drawn together; what lies between
    runs is told by `least` and `most`.
    """
    values = [value_of(cell, metric, of) for cell in cells]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    low = high = None
    asked = question_values(cells, metric, of)
    if asked:
        of_runs = [question_values([cell], metric, of) for cell in cells]
        answers = [mine[key] for mine in of_runs for key in asked]
        share = None if of == "change" else is_share(metric, answers)
        found = mean_interval(answers, passages(cells[0], asked) * len(cells), share=share)
        low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return Figure(sum(known) / len(known), low, high, len(known), min(known), max(known))


def gain_of(
    before: Sequence[CellResult],
    after: Sequence[CellResult],
    metric: str,
    of: Of = "adapter",
    scatter: Scatter | None = None,
) -> Gain | None:
    """Cells beside others, pair by pair: equal in everything but what is compared.

    Two things scatter: which questions were asked, and how training went. The interval is over questions (each one's
    difference averaged over the pairs), or over pairs, whichever is wider; with a single pair, over questions. Where
    pairs differ in the seed alone, they scatter as all runs of the study do.

    Args:
        before: cells that the others are compared with.
        after: the others, in the same order.
        metric: such as `eval/mmcu/accuracy`.
        of: what of the cells is compared.
        scatter: of the metric over the study's runs.

    Returns:
        None where nothing tells how far chance reaches: a single pair of a metric that is no mean over questions.
    """
    sign = 1.0 if higher_is_better(metric) else -1.0
    first, second = question_values(before, metric, of), question_values(after, metric, of)
    common = [key for key in first if key in second]
    found: list[_Span] = []
    if common:
        old, new = ([sign * each[key] for key in common] for each in (first, second))
        found.append(_span(compare(old, new, passages(before[0], dict.fromkeys(common, 0.0)))))
    pairs = [(value_of(one, metric, of), value_of(two, metric, of)) for one, two in zip(before, after, strict=True)]
    known = [(sign * one, sign * two) for one, two in pairs if one is not None and two is not None]
    if known and scatter is not None and only_seeds_differ(before) and only_seeds_differ(after):
        mean = sum(two - one for one, two in known) / len(known)
        reach = scatter.reach(_PAIR, len(known))
        found.append(_Span(mean, -reach, reach, scatter.p_value(mean, _PAIR, len(known))))
    elif len(known) > 1:
        found.append(_span(clustered_difference([one for one, _ in known], [two for _, two in known])))
    if not found:
        return None
    value, widest = found[0].value, max(found, key=lambda each: each.high - each.low)
    return Gain(value, value + widest.low, value + widest.high, widest.p_value, len(known), len(common))


@dataclass(frozen=True, slots=True)
class _Span:
    """A difference with the ends of its interval, told from the difference."""

    value: float
    low: float
    high: float
    p_value: float


def _span(found: PairedDifference) -> _Span:
    return _Span(found.difference, found.low - found.difference, found.high - found.difference, found.p_value)


def values_by_class(cells: Sequence[CellResult], task: str, of: Of = "adapter") -> dict[str, list[float]]:
    """Class -> its questions' values of the metric that a task is judged by, each averaged over the cells.

    Args:
        cells: at least one.
        task: its name in figures.
        of: what of the cells is meant.

    Returns:
        Nothing where some cell did not measure the task.
    """
    report = cells[0].report
    facts = [each for each in report.tasks if each.name == task] if report is not None else []
    if report is None or not facts:
        return {}
    groups = {(each.task, each.id): each.group for each in report.questions}
    found: dict[str, list[float]] = {}
    for key, value in question_values(cells, f"{_PREFIX}{task}/{facts[0].metric}", of).items():
        found.setdefault(groups[key], []).append(value)
    return found


def question_values(cells: Sequence[CellResult], metric: str, of: Of = "adapter") -> Questions:
    """Each question's value averaged over the cells; empty unless the metric is a mean over questions of them all."""
    asked = [_questions(cell.report, metric, of) for cell in cells if cell.report is not None]
    if not asked or len(asked) < len(cells) or not all(asked):
        return {}
    common = [key for key in asked[0] if all(key in each for each in asked)]
    return {key: sum(each[key] for each in asked) / len(asked) for key in common}


def _questions(report: EvalReport, metric: str, of: Of) -> Questions:
    task, name = _task_of(report, metric)
    if task is None:
        return {}
    mine = [each for each in report.questions if each.task == task]
    if of == "change":
        pairs = ((each, each.value(BASE, name), each.value(ADAPTER, name)) for each in mine)
        return {
            (each.task, each.id): after - before
            for each, before, after in pairs
            if before is not None and after is not None
        }
    found = ((each, each.value(BASE if of == "base" else ADAPTER, name)) for each in mine)
    return {(each.task, each.id): value for each, value in found if value is not None}


def _task_of(report: EvalReport, metric: str) -> tuple[str | None, str]:
    rest = metric.removeprefix(_PREFIX)
    for task in report.tasks:
        if rest.startswith(f"{task.name}/"):
            return task.name, rest.removeprefix(f"{task.name}/")
    return None, rest


def passages(cell: CellResult, asked: Questions) -> list[str]:
    """What questions share, so that chance is not taken for smaller than it is."""
    assert cell.report is not None
    known = {(each.task, each.id): each.stands_with for each in cell.report.questions}
    return [known[key] for key in asked]
