"""How a report reads: the rows of its table, for terminals and for pages."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from didact.evaluation.items import Comparison
from didact.evaluation.statistics import improvement, wilson_interval

_COLUMNS = ("metric", "items", "base", "adapter", "change")
_STYLES = {"better": "green", "worse": "red", "same": "dim", "unknown": "red"}
_SHOWN_EXAMPLES = 5
_SHOWN_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of a report."""

    metric: str
    count: int
    """Items behind it."""
    base: float
    adapter: float | None
    """None where only the base was evaluated."""


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, str, str, str, str]
    verdict: Literal["better", "worse", "same", "unknown"] | None


def as_table(title: str, figures: Sequence[Figure]) -> Table:
    """The report for a terminal."""
    table = Table(title=escape(title), box=box.SIMPLE_HEAD)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for row in _rows(figures):
        metric, *cells, change = map(escape, row.cells)
        style = _STYLES.get(row.verdict or "")
        shown = metric.removeprefix("eval/")  # every metric has it, and a terminal has 80 columns
        table.add_row(shown, *cells, f"[{style}]{change}[/{style}]" if style else change)
    return table


def as_markdown(title: str, figures: Sequence[Figure], examples: Sequence[Comparison]) -> str:
    """The report as a Markdown section: its table, then a few answers, changed ones first."""
    lines = [f"# {title}", "", f"| {' | '.join(_COLUMNS)} |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row.cells)} |" for row in _rows(figures)]
    lines += ["", "Accuracies carry their 95% interval (Wilson), in percent."] if _has_accuracy(figures) else []
    # False sorts first: answers whose verdict differs are the ones worth reading.
    chosen = sorted(examples, key=lambda example: example.adapter_correct in (None, example.base_correct))
    for example in chosen[:_SHOWN_EXAMPLES]:
        lines += ["", *_told(example)]
    return "\n".join(lines) + "\n"


def _rows(figures: Sequence[Figure]) -> Iterator[_Row]:
    for figure in figures:
        metric, count = figure.metric, figure.count
        cells = (metric, str(count), _value(metric, figure.base, count))
        if figure.adapter is None:
            yield _Row((*cells, "", ""), None)
            continue
        verdict = _verdict(improvement(metric, figure.base, figure.adapter))
        change = _change(metric, figure.adapter - figure.base, verdict)
        yield _Row((*cells, _value(metric, figure.adapter, count), change), verdict)


def _value(metric: str, value: float, count: int) -> str:
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


def _told(example: Comparison) -> list[str]:
    told = [
        f"**{example.task}**: {_short(example.question)}",
        f"- expected: {_short(example.expected)}",
        f"- base ({_mark(example.base_correct)}): {_short(example.base_answer)}",
    ]
    if example.adapter_answer is not None:
        told.append(f"- adapter ({_mark(example.adapter_correct)}): {_short(example.adapter_answer)}")
    return told


def _mark(correct: bool | None) -> str:
    return "right" if correct else "wrong"


def _short(text: str) -> str:
    # One line of plain code text: an answer must not break the page that shows it.
    line = " ".join(text.split()).replace("`", "'")
    if len(line) > _SHOWN_CHARACTERS:
        line = line[:_SHOWN_CHARACTERS] + "..."
    return f"`{line}`" if line else "(empty)"
