"""How a report reads: the rows of its table, for terminals and for pages."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from didact.evaluation.facts import Given, QuestionFacts, TaskFacts
from didact.evaluation.statistics import has_better_side, improvement, wilson_interval

_WITHOUT_FIGURES = 76
_STYLES = {"better": "green", "worse": "red", "same": "dim", "unknown": "red"}
_SHOWN_EXAMPLES = 5
_ERROR = "_stderr"
_REACH = 1.96
"""Standard errors on each side of a figure that hold it with 95%."""
_SHOWN_TEXTS = 2
_SHOWN_REMARKS = 3
_SHOWN_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of a report."""

    metric: str
    count: int
    """Questions behind it."""
    values: Mapping[str, float | None]
    """By model; None where it could not be told for one."""
    errors: Mapping[str, float | None] = field(default_factory=dict)
    """Standard errors, where the task tells them."""


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    """Metric, questions, each model's value; where two models are compared, the change."""
    verdict: Literal["better", "worse", "same", "unknown"] | None


def remarks(tasks: Sequence[TaskFacts], questions: Sequence[QuestionFacts]) -> list[str]:
    """What stands in no figure: questions without a score, and what was mended or left out in files of questions."""
    lines = []
    for task in tasks:
        for model, count in task.problems.items():
            if count:
                first = next(_problems(task.name, model, questions), "")
                lines.append(
                    f"{task.name}: {count:,} of {task.num_questions:,} questions have no score of {model}{first}"
                )
        lines += [f"{task.name}: {each}" for each in task.corrections[:_SHOWN_REMARKS]]
        if (more := len(task.corrections) - _SHOWN_REMARKS) > 0:
            lines.append(f"{task.name}: {more:,} more corrections are in the report")
    return lines


def _problems(task: str, model: str, questions: Sequence[QuestionFacts]) -> Iterator[str]:
    for each in questions:
        if each.task == task and (given := each.given.get(model)) is not None and given.problem is not None:
            yield f"; the first, {each.id}: {given.problem}"


def figures_of(metrics: Mapping[str, Mapping[str, float]], counts: Mapping[str, int]) -> list[Figure]:
    """A report's figures; standard errors stand with what they are of.

    Args:
        metrics: model -> metric -> value.
        counts: metric -> questions behind it.
    """
    names = dict.fromkeys(name for values in metrics.values() for name in values)
    return [
        Figure(
            name,
            counts[name],
            {model: values.get(name) for model, values in metrics.items()},
            {model: values.get(name + _ERROR) for model, values in metrics.items()},
        )
        for name in names
        if name.removesuffix(_ERROR) not in names or not name.endswith(_ERROR)
    ]


def as_table(title: str, figures: Sequence[Figure], notes: Sequence[str] = ()) -> Table:
    """The report for a terminal."""
    caption = escape("\n".join(notes)) or None
    table = Table(
        title=escape(title), box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", caption_style="yellow"
    )
    if notes and not figures:
        table.min_width = _WITHOUT_FIGURES  # nothing else would make it wider than its headings
    for name in _columns(figures):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for row in _rows(figures):
        metric, *cells, last = map(escape, row.cells)
        style = _STYLES.get(row.verdict or "")
        shown = metric.removeprefix("eval/")  # every metric has it, and a terminal has 80 columns
        table.add_row(shown, *cells, f"[{style}]{last}[/{style}]" if style else last)
    return table


def as_markdown(
    title: str, figures: Sequence[Figure], questions: Sequence[QuestionFacts], notes: Sequence[str] = ()
) -> str:
    """The report as a Markdown section: its table, then a few answers, changed ones first."""
    columns = _columns(figures)
    lines = [f"# {title}", "", f"| {' | '.join(columns)} |", f"|---{'|---:' * (len(columns) - 1)}|"]
    lines += [f"| {' | '.join(row.cells)} |" for row in _rows(figures)]
    lines += ["", "Accuracies carry their 95% interval (Wilson), in percent."] if _has_accuracy(figures) else []
    lines += ["", *(f"- {_short(note)}" for note in notes)] if notes else []
    # False sorts first: answers whose verdict differs are the ones worth reading.
    chosen = sorted(questions, key=lambda each: len({_mark(given) for given in each.given.values()}) == 1)
    for question in chosen[:_SHOWN_EXAMPLES]:
        lines += ["", *_told(question)]
    return "\n".join(lines) + "\n"


def _columns(figures: Sequence[Figure]) -> list[str]:
    models = list(figures[0].values) if figures else []
    return ["metric", "items", *models, *(["change"] if len(models) > 1 else [])]


def _rows(figures: Sequence[Figure]) -> Iterator[_Row]:
    for figure in figures:
        metric, count = figure.metric, figure.count
        values = (_value(metric, each, count, figure.errors.get(model)) for model, each in figure.values.items())
        cells = (metric, str(count), *values)
        if len(figure.values) < 2:
            yield _Row(cells, None)
            continue
        base, adapter = list(figure.values.values())[:2]
        if base is not None and adapter is not None and not has_better_side(metric):
            yield _Row((*cells, f"{adapter - base:+.4f}"), None)
            continue
        verdict = _verdict(math.nan if base is None or adapter is None else improvement(metric, base, adapter))
        yield _Row((*cells, _change(metric, (adapter or 0.0) - (base or 0.0), verdict)), verdict)


def _value(metric: str, value: float | None, count: int, error: float | None = None) -> str:
    if value is None:
        return "-"
    if error is not None and math.isfinite(error) and math.isfinite(value):
        return f"{value:.4f} [{value - _REACH * error:.3f}, {value + _REACH * error:.3f}]"
    if not metric.endswith("/accuracy") or not math.isfinite(value):
        return f"{value:.4f}"
    low, high = wilson_interval(round(value * count), count)
    return f"{value:.1%} [{low * 100:.0f}-{high * 100:.0f}]"


def _verdict(gain: float) -> Literal["better", "worse", "same", "unknown"]:
    if math.isnan(gain):
        return "unknown"
    if gain == 0:
        return "same"
    return "better" if gain > 0 else "worse"


def _change(metric: str, difference: float, verdict: str) -> str:
    if verdict in ("same", "unknown"):
        return verdict
    return f"{difference:+.1%} {verdict}" if metric.endswith("/accuracy") else f"{difference:+.4f} {verdict}"


def _has_accuracy(figures: Sequence[Figure]) -> bool:
    return any(figure.metric.endswith("/accuracy") for figure in figures)


def _told(question: QuestionFacts) -> list[str]:
    told = [f"**{question.task}**: {_short(question.question)}", f"- expected: {_short(question.expected)}"]
    for model, given in question.given.items():
        texts = given.texts or (given.extracted or "",)
        told += [f"- {model} ({_mark(given)}): {_short(text)}" for text in texts[:_SHOWN_TEXTS]]
        told += [f"- and {more} more of {model}"] if (more := len(texts) - _SHOWN_TEXTS) > 0 else []
    return told


def _mark(given: Given) -> str:
    if given.problem is not None:
        return given.problem
    if "accuracy" not in given.values:
        return ", ".join(f"{name} {value:.2f}" for name, value in given.values.items())
    return "right" if given.values["accuracy"] == 1.0 else "wrong"


def _short(text: str) -> str:
    # One line of plain code text: an answer must not break the page that shows it.
    line = " ".join(text.split()).replace("`", "'")
    if len(line) > _SHOWN_CHARACTERS:
        line = line[:_SHOWN_CHARACTERS] + "..."
    return f"`{line}`" if line else "(empty)"
