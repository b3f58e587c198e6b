"""A study's result as one HTML page that asks for nothing beside it."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from didact.display import visible
from didact.evaluation.results import group_names
from didact.evaluation.statistics import higher_is_better
from didact.pages import Axis, Scale, Series, plot, radar, render_page, short, spent
from didact.studies.figures import Figure, figure_of
from didact.studies.findings import (
    Contrast,
    Effect,
    Scaling,
    Transfer,
    effects_of,
    proposals_of,
    scalings_of,
    shares_of,
    transfers_of,
)
from didact.studies.published import Beside, Paper
from didact.studies.results import CellResult, StudyResult
from didact.studies.tables import Table, counterparts, shown, tables_of

_TEMPLATE = Path(__file__).with_name("study.html.jinja")
_COLOURS = 7
_SMOOTHED = 0.1
"""Share of a curve that is averaged into each of its points."""
_DESIGNS = {
    "full": "all combinations",
    "one_at_a_time": "each varied alone, the others at their reference levels",
    "fractional": "a balanced part of all combinations",
    "listed": "listed cells",
}
_FILES = {"report.html": "answers", "recipe.json": "recipe", "steps.jsonl": "steps", "log.txt": "log"}
"""What a cell's links lead to, and how they are called."""
_AXES = range(3, 25)
"""Classes that a radar has room for."""


def render_study(result: StudyResult, published: Sequence[Beside] = (), paper: Paper | None = None) -> str:
    """The page; every text of recipes and errors is shown as text, whatever it holds.

    Args:
        result: of the study, finished or not.
        published: tables of a paper with the study's figures beside them.
        paper: the one they are from.
    """
    effects = effects_of(result)
    return render_page(
        _TEMPLATE,
        result=result,
        visible=visible,
        shown=shown,
        colour=lambda place: min(place, _COLOURS),
        counts=Counter(cell.status for cell in result.cells),
        seconds=spent(sum(cell.seconds for cell in result.cells)),
        tables=[(table, _bars(table)) for table in tables_of(result)] if result.measured else [],
        effects=[(metric, _forest(effects, metric)) for metric in dict.fromkeys(each.metric for each in effects)],
        found=[str(each) for each in effects if each.is_found],
        num_effects=len(effects),
        curves=[(factor, _curves(result, factor)) for factor in result.spec.factors],
        classes=[(factor, _classes(result, factor)) for factor in result.spec.factors],
        cells=[(cell, _figures(cell, result.metrics()), _links(cell)) for cell in result.cells],
        spent=spent,
        short=short,
        design=_DESIGNS[result.spec.design],
        tokens=short(sum(cell.tokens for cell in result.cells)),
        metrics=result.metrics(),
        published=published,
        paper=paper,
        scalings=[(each, _line_over(each)) for each in scalings_of(result)],
        shares=shares_of(result),
        transfers=[(each, _heat(each)) for each in transfers_of(result)],
        proposals=proposals_of(result),
    )


def _line_over(scaling: Scaling) -> Markup:
    """Figures over the amount on a logarithmic axis, the fitted line through them, and their intervals."""
    amounts = [amount for amount, _ in scaling.points]
    ends = [end for _, figure in scaling.points for end in (figure.low, figure.value, figure.high) if end is not None]
    line = tuple((amount, scaling.fitted(amount)) for amount in (amounts[0], amounts[-1]))
    spans = [
        Series(((amount, figure.low), (amount, figure.high)), style="l7")
        for amount, figure in scaling.points
        if figure.low is not None and figure.high is not None
    ]
    dots = [
        Series(((amount, figure.value),), f"{amount:g}: {figure.value:.4g}", "l1") for amount, figure in scaling.points
    ]
    x = Scale.over(amounts, scaling.factor, log=True)
    return plot(x, Scale.over([*ends, *(value for _, value in line)]), [*spans, Series(line, "fit", "l1")], dots)


def _heat(transfer: Transfer) -> list[tuple[str, list[tuple[Contrast | None, float, bool]]]]:
    """Per level and metric: the change, its share of the metric's largest one, whether the data is the task's own."""
    columns = zip(*transfer.changes, strict=True)
    largest = [max([abs(each.value) for each in column if each is not None], default=0.0) or 1.0 for column in columns]
    return [
        (
            level,
            [
                (each, 0.0 if each is None else each.value / top, own)
                for each, top, own in zip(row, largest, owns, strict=True)
            ],
        )
        for level, row, owns in zip(transfer.levels, transfer.changes, transfer.own, strict=True)
    ]


def _figures(cell: CellResult, metrics: Sequence[str]) -> list[str]:
    found = [figure_of([cell], metric) if cell.report is not None else None for metric in metrics]
    return ["-" if each is None else f"{each.value:.4g}" for each in found]


def _links(cell: CellResult) -> list[tuple[str, str]]:
    """Address beside the page, and word, of each file that a cell has."""
    folder = f"cells/{quote(cell.name)}"
    return [(f"{folder}/{name}", word) for name, word in _FILES.items() if (cell.run / name).is_file()]


def _bars(table: Table) -> list[list[tuple[float, float, float] | None]]:
    """Per row and column: the bar's end and both ends of its interval, in percent of the column's widest."""
    columns = []
    for place in range(len(table.columns)):
        figures = [row[place].figure for row in table.entries]
        top = max([*(abs(end) for each in figures if each is not None for end in _ends(each)), 1e-12])
        columns.append([None if each is None else _places(each, top) for each in figures])
    return [list(row) for row in zip(*columns, strict=True)]


def _ends(figure: Figure) -> tuple[float, float, float]:
    low = figure.value if figure.low is None else figure.low
    return figure.value, low, figure.value if figure.high is None else figure.high


def _places(figure: Figure, top: float) -> tuple[float, float, float]:
    value, low, high = (100 * min(1.0, max(0.0, end / top)) for end in _ends(figure))
    return value, low, high


def _forest(effects: Sequence[Effect], metric: str) -> list[tuple[Effect, str, tuple[float, float, float, float]]]:
    """Effects with their places on one axis in percent: zero, low, value, high."""
    mine = [each for each in effects if each.metric == metric]
    finite = [end for each in mine for end in (each.gain.low, each.gain.high, each.gain.value) if math.isfinite(end)]
    reach = max([*map(abs, finite), 1e-9]) * 1.05

    def place(value: float) -> float:
        return 50 + 50 * max(-1.0, min(1.0, value / reach))

    return [
        (
            each,
            f"{each.gain.value:+.3g} [{each.gain.low:+.3g}, {each.gain.high:+.3g}]",
            (50.0, place(each.gain.low), place(each.gain.value), place(each.gain.high)),
        )
        for each in mine
    ]


def _curves(result: StudyResult, factor: str) -> Markup | None:
    """Training loss over steps, a line a level: the mean over its cells, smoothed."""
    lines: list[Series] = []
    points: list[tuple[float, float]] = []
    cells, _ = counterparts(result, factor, tuple(result.spec.factors[factor]), {})
    for number, (level, mine) in enumerate(cells.items(), start=1):
        curve = _mean_curve([cell.curve for cell in mine if cell.curve])
        if curve:
            lines.append(Series(curve, level, f"l{min(number, _COLOURS)}"))
            points += curve
    if not lines:
        return None
    x = Scale.over([0.0, *(step for step, _ in points)], "optimizer step")
    return plot(x, Scale.over([value for _, value in points]), lines)


def _mean_curve(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[tuple[float, float], ...]:
    """Where all curves have a point, their mean, each point averaged with those before it."""
    if not curves:
        return ()
    by_step = [dict(curve) for curve in curves]
    steps = [step for step in by_step[0] if all(step in each for each in by_step)]
    means = [sum(each[step] for each in by_step) / len(by_step) for step in steps]
    width = max(1, round(len(means) * _SMOOTHED))
    smooth = [sum(means[max(0, at + 1 - width) : at + 1]) / min(width, at + 1) for at in range(len(means))]
    return tuple((float(step), value) for step, value in zip(steps, smooth, strict=True) if math.isfinite(value))


def _classes(result: StudyResult, factor: str) -> list[tuple[str, Markup]]:
    """Radars: of each task with classes, each class's figure, a line a level."""
    levels = tuple(result.spec.factors[factor])
    cells, _ = counterparts(result, factor, levels, {})
    measured = [each for each in cells.values() if each]
    if len(measured) < 2 or measured[0][0].report is None:
        return []
    report, found = measured[0][0].report, []
    for task in report.tasks:
        groups = dict.fromkeys(each.group for each in report.questions if each.task == task.name)
        named = group_names(groups)
        names = [(group, f"eval/{task.name}/{named[group]}/{task.metric}") for group in groups if group]
        if len(names) in _AXES and higher_is_better(task.metric):
            axes = [Axis(group, tuple(_share(each, metric) for each in cells.values())) for group, metric in names]
            if any(value is not None for axis in axes for value in axis.values):
                found.append((task.name, radar(axes, len(cells))))
    return found


def _share(cells: Sequence[CellResult], metric: str) -> float | None:
    found = figure_of(cells, metric) if cells else None
    return found.value if found is not None and 0 <= found.value <= 1 else None
