"""Tables of a study: levels down, metrics or levels across; the best marked, and what is not told apart from it."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from didact.evaluation.statistics import corrected, higher_is_better
from didact.spec import TableSpec
from didact.studies.additive import additive_terms, is_additive
from didact.studies.contrasts import Contrast, contrast
from didact.studies.figures import Figure, Gain, figure_of, gain_of
from didact.studies.results import CellResult, StudyResult
from didact.studies.values import scatter_of

_LIMIT = 0.05
CSV_HEADINGS = ("table", "factor", "level", "column", "metric", *("value", "low", "high", "runs", "best", "not worse"))
_LATEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a table."""

    figure: Figure | None
    missing: str = ""
    """Why there is no figure."""
    is_best: bool = False
    not_worse: bool = False
    """Not shown to be worse than the best one, over all rows of the column (Holm)."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as figures."""

    title: str
    factor: str
    """Whose levels are the rows."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    """Metrics, or levels of another factor."""
    metrics: tuple[str, ...]
    """Of each column."""
    entries: tuple[tuple[Entry, ...], ...]
    """By row."""
    ranks: tuple[float | None, ...]
    """Mean rank of each row over the columns, 1 for the best; None where a figure is missing."""
    num_cells: int
    left_out: int
    """Measured cells that have no counterpart in another row and were left out, so that rows compare like with like."""

    def markdown(self) -> str:
        """A table of Markdown; the best in bold, what is not shown to be worse in italics."""
        lines = [
            f"## {self.title}",
            "",
            _line([self.factor, *self._headings]),
            _line(["---"] * (1 + len(self._headings))),
        ]
        for name, row, rank in zip(self.rows, self.entries, self.ranks, strict=True):
            cells = [_marked(each, "**{}**", "*{}*") for each in row]
            lines.append(_line([name.replace("|", "\\|"), *cells, *self._rank(rank)]))
        return "\n".join([*lines, "", self.note(), ""])

    def csv(self) -> str:
        """Comma-separated values under `CSV_HEADINGS`: a line a figure, unrounded."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, row in zip(self.rows, self.entries, strict=True):
            for column, metric, each in zip(self.columns, self.metrics, row, strict=True):
                found = each.figure
                figures = [found.value, found.low, found.high, found.num_cells] if found else [each.missing, "", "", 0]
                writer.writerow([self.title, self.factor, name, column, metric, *figures, each.is_best, each.not_worse])
        return text.getvalue()

    def latex(self) -> str:
        """A `tabular` with booktabs' rules; the best in bold, what is not shown to be worse underlined."""
        headings = " & ".join(map(_escaped, (self.factor, *self._headings)))
        lines = [rf"\begin{{tabular}}{{l{'r' * len(self._headings)}}}", r"\toprule", rf"{headings} \\", r"\midrule"]
        for name, row, rank in zip(self.rows, self.entries, self.ranks, strict=True):
            cells = [_marked(each, r"\textbf{{{}}}", r"\underline{{{}}}", _escaped) for each in row]
            lines.append(rf"{' & '.join([_escaped(name), *cells, *self._rank(rank)])} \\")
        return "\n".join([f"% {' '.join(self.title.split())}", *lines, r"\bottomrule", r"\end{tabular}", ""])

    def note(self) -> str:
        """What the marks mean and what was averaged."""
        averaged = (
            f"Figures are means over {self.num_cells // max(1, len(self.rows))} runs a row. " if self._several else ""
        )
        left = f"{self.left_out} runs without a counterpart in every row are left out. " if self.left_out else ""
        marks = f"Bold: the best of its column; italics: not shown to be worse (paired test, p {_LIMIT} or more, Holm)."
        return averaged + left + marks

    @property
    def _several(self) -> bool:
        return self.num_cells > len(self.rows)

    @property
    def _headings(self) -> tuple[str, ...]:
        names = tuple(each.removeprefix("eval/") for each in self.columns)
        return (*names, "mean rank") if any(rank is not None for rank in self.ranks) else names

    def _rank(self, rank: float | None) -> list[str]:
        return [] if len(self._headings) == len(self.columns) else ["-" if rank is None else f"{rank:.1f}"]


def tables_of(result: StudyResult) -> list[Table]:
    """The tables that the study names; without any, one a factor."""
    asked = result.spec.tables or tuple(TableSpec(name=factor, rows=factor) for factor in result.spec.factors)
    return [_table(result, each) for each in asked]


def counterparts(
    result: StudyResult, factor: str, levels: Sequence[str], fixed: dict[str, str]
) -> tuple[dict[str, list[CellResult]], int]:
    """Measured cells of each level in one order: what stands in one place is equal in everything but the factor.

    Args:
        result: of the study.
        factor: that is compared.
        levels: of it; those without any measured cell get an empty list.
        fixed: levels of other factors that cells must have.

    Returns:
        Level -> cells, and how many measured cells have no counterpart at some other level. Of a fractional design all
        cells of each level: its levels are balanced instead.
    """
    spec = result.spec
    if spec.design == "one_at_a_time":
        fixed = {**{name: spec.reference(name) for name in spec.factors if name != factor}, **fixed}
    by_key: dict[str, dict[tuple[object, ...], CellResult]] = {level: {} for level in levels}
    for cell in result.measured:
        if cell.levels[factor] in by_key and all(cell.levels[name] == level for name, level in fixed.items()):
            others = tuple(level for name, level in cell.levels.items() if name != factor)
            by_key[cell.levels[factor]][(*others, cell.seed)] = cell
    if is_additive(result):
        return {level: list(cells.values()) for level, cells in by_key.items()}, 0
    present = [cells for cells in by_key.values() if cells]
    common = [key for key in present[0] if all(key in cells for cells in present)] if present else []
    found = {level: [cells[key] for key in common] if cells else [] for level, cells in by_key.items()}
    return found, sum(len(cells) - len(common) for cells in present)


def _table(result: StudyResult, asked: TableSpec) -> Table:
    levels = tuple(result.spec.factors[asked.rows])
    metrics = asked.metrics or result.metrics()
    columns: list[tuple[str, str, dict[str, str]]] = [(metric, metric, asked.fixed) for metric in metrics]
    if asked.columns is not None:
        across = result.spec.factors[asked.columns]
        columns = [(level, metrics[0], {**asked.fixed, asked.columns: level}) for level in across if metrics]
    filled, num_cells, left_out = [], 0, 0
    for _, metric, fixed in columns:
        cells, alone = counterparts(result, asked.rows, levels, fixed)
        filled.append(_column(result, asked, cells, metric))
        num_cells, left_out = max(num_cells, sum(map(len, cells.values()))), max(left_out, alone)
    entries = tuple(zip(*filled, strict=True)) if filled else tuple(() for _ in levels)
    return Table(
        asked.name,
        asked.rows,
        levels,
        tuple(name for name, _, _ in columns),
        tuple(metric for _, metric, _ in columns),
        entries,
        _ranks(entries, [metric for _, metric, _ in columns]),
        num_cells,
        left_out,
    )


def _column(result: StudyResult, asked: TableSpec, cells: dict[str, list[CellResult]], metric: str) -> list[Entry]:
    figures = {level: figure_of(each, metric, asked.of) if each else None for level, each in cells.items()}
    entries = {
        level: Entry(each, "" if each else _why(result, asked.rows, level, metric)) for level, each in figures.items()
    }
    known = {level: found.value for level, found in figures.items() if found is not None}
    if len(known) > 1:
        best = (max if higher_is_better(metric) else min)(known, key=known.__getitem__)
        entries[best] = replace(entries[best], is_best=True)
        for level, p_value in corrected(_p_values(result, asked, cells, metric, best, list(known))).items():
            entries[level] = replace(entries[level], not_worse=p_value >= _LIMIT)
    return list(entries.values())


def _p_values(
    result: StudyResult,
    asked: TableSpec,
    cells: dict[str, list[CellResult]],
    metric: str,
    best: str,
    levels: Sequence[str],
) -> dict[str, float]:
    """Level -> how likely chance alone makes the best one so much better, for levels of which that can be told."""
    scatter = None if asked.of == "base" else scatter_of(result, metric, asked.of)
    found: dict[str, Gain | Contrast | None] = {}
    for level in levels:
        if level == best:
            continue
        if not is_additive(result):
            found[level] = gain_of(cells[level], cells[best], metric, asked.of, scatter)
        elif asked.columns is None and not asked.fixed:
            terms = additive_terms(result, asked.rows, {best: 1.0, level: -1.0})
            found[level] = contrast([replace(each, of=asked.of) for each in terms], metric, scatter) if terms else None
    return {level: each.p_value for level, each in found.items() if each is not None}


def _why(result: StudyResult, factor: str, level: str, metric: str) -> str:
    """What kept a row from its figure."""
    mine = [cell.status for cell in result.cells if cell.levels[factor] == level]
    rest = "not measured" if metric in result.measured_metrics else "no such metric"
    return next((status for status in ("failed", "incomplete", "not run") if status in mine), rest)


def _ranks(entries: Sequence[Sequence[Entry]], metrics: Sequence[str]) -> tuple[float | None, ...]:
    from scipy.stats import rankdata

    if len(metrics) < 2 or len(entries) < 2:
        return tuple(None for _ in entries)
    whole = [index for index, row in enumerate(entries) if all(each.figure is not None for each in row)]
    found: list[float | None] = [None] * len(entries)
    if len(whole) < 2:
        return tuple(found)
    totals = [0.0] * len(whole)
    for place, metric in enumerate(metrics):
        sign = -1.0 if higher_is_better(metric) else 1.0
        figures = [entries[index][place].figure for index in whole]
        for at, rank in enumerate(rankdata([sign * each.value for each in figures if each is not None])):
            totals[at] += float(rank)
    for index, total in zip(whole, totals, strict=True):
        found[index] = total / len(metrics)
    return tuple(found)


def shown(entry: Entry) -> str:
    """A figure with its interval in few characters."""
    found = entry.figure
    if found is None:
        return entry.missing or "-"
    span = "" if found.low is None or found.high is None else f" [{found.low:.3g}, {found.high:.3g}]"
    return f"{found.value:.4g}{span}"


def _marked(entry: Entry, best: str, not_worse: str, written: Callable[[str], str] = str) -> str:
    text = written(shown(entry))
    return best.format(text) if entry.is_best else not_worse.format(text) if entry.not_worse else text


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
