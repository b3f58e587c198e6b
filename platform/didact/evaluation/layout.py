"""How a report reads: the rows of its table, for terminals and for pages."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from didact.evaluation.interval import wilson_interval

if TYPE_CHECKING:
    from didact.evaluation.report import Comparison, EvalReport

_COLUMNS = ("metric", "items", "base", "adapter", "change")
_STYLES = {"better": "green", "worse": "red", "same": "dim", "unknown": "red"}
_SHOWN_EXAMPLES = 5
_SHOWN_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, str, str, str, str]
    verdict: Literal["better", "worse", "same", "unknown"] | None


def higher_is_better(metric: str) -> bool:
    """Whether more is better: not for losses."""
    return metric.rpartition("/")[2] != "loss"


def improvement(metric: str, base: float, adapter: float) -> float:
    """By how much the adapter is better than the base, in the metric's own unit; negative where it is worse."""
    return adapter - base if higher_is_better(metric) else base - adapter


def as_table(report: "EvalReport") -> Table:
    """The report for a terminal."""
    table = Table(title=escape(_title(report)), box=box.SIMPLE_HEAD)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for row in _rows(report):
        metric, *cells, change = map(escape, row.cells)
        style = _STYLES.get(row.verdict or "")
        shown = metric.removeprefix("eval/")  # every metric has it, and a terminal has 80 columns
        table.add_row(shown, *cells, f"[{style}]{change}[/{style}]" if style else change)
    return table


def as_markdown(report: "EvalReport") -> str:
    """The report as a Markdown section: its table, then a few answers, changed ones first."""
    lines = [f"# {_title(report)}", "", f"| {' | '.join(_COLUMNS)} |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(row.cells)} |" for row in _rows(report)]
    lines += ["", "Accuracies carry their 95% interval (Wilson), in percent."] if _has_accuracy(report) else []
    # False sorts first: answers whose verdict differs are the ones worth reading.
    chosen = sorted(report.examples, key=lambda example: example.adapter_correct in (None, example.base_correct))
    for example in chosen[:_SHOWN_EXAMPLES]:
        lines += ["", *_told(example)]
    return "\n".join(lines) + "\n"


def _title(report: "EvalReport") -> str:
    return f"{report.adapter_id or 'adapter'} on {report.base_id}" if report.adapter is not None else report.base_id


def _rows(report: "EvalReport") -> Iterator[_Row]:
    for metric, base in report.base.items():
        count = report.counts[metric]
        cells = (metric, str(count), _value(metric, base, count))
        if report.adapter is None:
            yield _Row((*cells, "", ""), None)
            continue
        adapter = report.adapter[metric]
        verdict = _verdict(improvement(metric, base, adapter))
        change = _change(metric, adapter - base, verdict)
        yield _Row((*cells, _value(metric, adapter, count), change), verdict)


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


def _has_accuracy(report: "EvalReport") -> bool:
    return any(metric.endswith("/accuracy") for metric in report.base)


def _told(example: "Comparison") -> list[str]:
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
