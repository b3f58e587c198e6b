"""A report as one HTML page that asks for nothing beside it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from didact.display import visible
from didact.evaluation.page.figures import (
    Row,
    TaskFigures,
    all_figures,
    lengths,
    losses,
    radars,
    task_figures,
)
from didact.evaluation.report import Change, EvalReport, Given, Point, QuestionFacts
from didact.evaluation.report.contamination import how_searched
from didact.evaluation.statistics import higher_is_better
from didact.pages import histogram, radar, render_page, spent

_TEMPLATE = Path(__file__).with_name("evaluation.html.jinja")
_EDGES = (0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Bins of answer lengths, in tokens."""
_SHOWN_QUESTIONS = 2000
_SHOWN_CHARACTERS = 6000


def render_evaluation(report: EvalReport) -> str:
    """The page; every text of questions and answers is shown as text, whatever it holds."""
    tasks = task_figures(report)
    shown = _shown(report, tasks)
    written = lengths(report, tasks, _EDGES)
    numbers = {key: number for number, key in enumerate(report.models, start=1)}
    return render_page(
        _TEMPLATE,
        figure=figure,
        percent=_percent,
        interval=_interval,
        change=_change,
        number_of=numbers.__getitem__,
        title=_title(report),
        models=[{"key": key, "name": facts.name, "digests": facts.digests} for key, facts in report.models.items()],
        totals=_totals(report, tasks),
        tasks=tasks,
        losses=losses(report),
        figures=all_figures(report),
        held=[each for each in report.contamination if each.num_seen],
        searched=list(how_searched(report.models, report.contamination)),
        radars=[(name, radar(axes, len(report.models))) for name, axes in radars(tasks)],
        lengths=_drawn(written),
        num_questions=len(report.questions),
        num_shown=len(shown),
        data=_as_script(_data(report, tasks, shown)),
    )


def figure(row: Row, value: float | None) -> str:
    """A figure in few characters: percent for shares."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1%}" if row.is_share else f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(row: Row, value: float | None) -> str:
    """Where a value lies between 0 and the row's top."""
    place = 0.0 if value is None else min(1.0, max(0.0, value / row.top))
    return f"{100 * place:.2f}%"


def _interval(row: Row, point: Point) -> str:
    low, high = (end * 100 if row.is_share else end for end in (point.low or 0.0, point.high or 0.0))
    return f"[{low:.0f}-{high:.0f}]" if row.is_share else f"[{low:.3f}, {high:.3f}]"


def _change(row: Row, found: Change) -> str:
    """A difference with its interval, in points of percent for shares."""
    size, digits = (100, 1) if row.is_share else (1, 4)
    told = f"{found.difference * size:+.{digits}f}"
    if found.low is None or found.high is None:
        return told
    return f"{told} [{found.low * size:+.{digits}f}, {found.high * size:+.{digits}f}]"


def _totals(report: EvalReport, tasks: Sequence[TaskFigures]) -> dict[str, Any]:
    verdicts = [task.verdict for task in tasks]
    return {
        "won": sum(task.won for task in tasks),
        "lost": sum(task.lost for task in tasks),
        "better": verdicts.count("better"),
        "worse": verdicts.count("worse"),
        "unanswered": sum(task.unanswered for task in tasks),
        "seconds": spent(sum(task.seconds for task in report.tasks)),
    }


def _title(report: EvalReport) -> str:
    return next(iter(report.models.values())).name if len(report.models) == 1 else list(report.models.values())[1].name


def _shown(report: EvalReport, tasks: Sequence[TaskFigures]) -> list[QuestionFacts]:
    """All questions, or of many those whose answers differ most, in their order."""
    if len(report.questions) <= _SHOWN_QUESTIONS:
        return list(report.questions)
    metrics = {task.facts.name: task.facts.metric for task in tasks}

    def spread(question: QuestionFacts) -> float:
        found = [given.values.get(metrics[question.task], math.nan) for given in question.given.values()]
        known = [value for value in found if math.isfinite(value)]
        return max(known) - min(known) if known else math.inf

    numbers = range(len(report.questions))
    first = sorted(numbers, key=lambda number: -spread(report.questions[number]))[:_SHOWN_QUESTIONS]
    return [report.questions[number] for number in sorted(first)]


def _data(report: EvalReport, tasks: Sequence[TaskFigures], shown: Sequence[QuestionFacts]) -> dict[str, Any]:
    """What the page's own program filters and shows."""
    metrics = {task.facts.name: task.facts.metric for task in tasks}
    return {
        "models": [{"key": key, "name": facts.name} for key, facts in report.models.items()],
        "questions": [_question(each, _metric(each, metrics[each.task]), list(report.models)) for each in shown],
    }


def _question(question: QuestionFacts, metric: str, models: Sequence[str]) -> dict[str, Any]:
    return {
        "task": question.task,
        "id": question.id,
        "group": question.group,
        "metric": metric,
        "up": higher_is_better(metric),
        "question": _cut(question.question),
        "expected": _cut(question.expected),
        "given": [_given(question.given[model], metric) for model in models],
    }


def _metric(question: QuestionFacts, of_task: str) -> str:
    """What says how good an answer is; another one than the task's in parts of a task that have their own."""
    found = dict.fromkeys(name for given in question.given.values() for name in given.values)
    return of_task if of_task in found else next(iter(found), of_task)


def _given(given: Given, metric: str) -> dict[str, Any]:
    value = given.values.get(metric)
    others = {name: each for name, each in given.values.items() if name != metric and math.isfinite(each)}
    return {
        "texts": [_cut(text) for text in given.texts],
        "value": value if value is not None and math.isfinite(value) else None,
        "values": others,
        "extracted": None if given.extracted is None else _cut(given.extracted),
        "problem": None if given.problem is None else _cut(given.problem),
        "note": _cut(given.note),
        "seen": _cut(given.seen),
        "tokens": given.num_tokens,
    }


def _cut(text: str) -> str:
    return visible(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ...")


def _as_script(data: Any) -> Markup:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _drawn(written: Sequence[Any]) -> dict[str, Any]:
    """Histograms on one axis, with the mean score of each bin below."""
    used = [place for each in written for place, count in enumerate(each.counts) if count]
    if not used:
        return {"rows": [], "ticks": [], "bins": []}
    first, last = min(used), max(used)
    rows = [
        {
            "model": each.model,
            "median": each.median,
            "chart": histogram(each.counts, _EDGES, first, last, each.median),
            "means": each.mean_by_bin[first : last + 1],
        }
        for each in written
    ]
    span = last - first + 1
    ticks = [(_EDGES[first + place], place / span) for place in range(span)]
    return {"rows": rows, "ticks": ticks, "has_means": any(m is not None for row in rows for m in row["means"])}
