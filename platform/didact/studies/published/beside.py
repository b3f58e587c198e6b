"""A study's figures beside those that a paper printed for the same levels, averages read in both ways."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from didact.errors import RunError
from didact.spec import StudySpec
from didact.studies.figures import values_by_class
from didact.studies.published.paper import (
    Paper,
    PublishedTable,
    averages,
    averages_of,
    inconsistencies,
    is_change,
    task_of,
)
from didact.studies.results import CellResult, StudyResult
from didact.studies.tables import counterparts
from didact.studies.values import Of

_FEWEST = 2
"""Levels that a study must share with a table."""
_PER_CENT = 100


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure of one's own and the printed one, in per cent; None where there is none."""

    own: float | None
    printed: float | None

    def __str__(self) -> str:
        own, printed = ("-" if each is None else f"{each:.1f}" for each in (self.own, self.printed))
        return f"{own} ({printed})"


@dataclass(frozen=True, slots=True)
class Beside:
    """A published table with a study's own figures."""

    table: PublishedTable
    columns: tuple[str, ...]
    """A task's average stands twice: `macro` is the mean over classes, `weighted` that over questions."""
    rows: dict[str, tuple[Pair, ...]]
    """Printed rows, also those that the study has no level for."""
    notes: tuple[str, ...]
    """Printed figures that do not fit together, and where the two averages name different winners."""

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.table.title} ({self.table.name})"

    def markdown(self) -> str:
        """One's own figures, and in brackets the printed ones."""
        lines = [f"### {self.title}", "", _line([self.table.factor, *self.columns])]
        lines.append(_line(["---"] * (1 + len(self.columns))))
        lines += [_line([name.replace("|", "\\|"), *map(str, row)]) for name, row in self.rows.items()]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes), ""])

    def csv(self) -> str:
        """A line a figure: own and printed, in per cent."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, row in self.rows.items():
            for column, pair in zip(self.columns, row, strict=True):
                writer.writerow([self.table.name, name, column, pair.own, pair.printed])
        return text.getvalue()


def beside(result: StudyResult, paper: Paper) -> list[Beside]:
    """The published tables that vary what the study varies, with both figures.

    Raises:
        RunError: no table of the paper has two levels of a factor of this study, or a figure of what it measures.
    """
    found = [_beside(result, paper, table) for table in paper.tables if _fits(result.spec, table)]
    if not found:
        known = {table.factor: ", ".join(list(table.rows)[:3]) for table in paper.tables}
        raise RunError(
            f"nothing in the paper stands beside study {result.spec.name}: found the factors "
            f"{', '.join(result.spec.factors)}; expected two levels of one of its own, such as "
            + "; ".join(f"{factor}: {levels}" for factor, levels in known.items())
        )
    if result.measured and not any(
        pair.own is not None for each in found for row in each.rows.values() for pair in row
    ):
        printed = dict.fromkeys(task_of(column) for each in found for column in each.table.columns)
        raise RunError(
            f"nothing in the paper stands beside study {result.spec.name}: it is measured by "
            f"{', '.join(metric.removeprefix('eval/') for metric in result.metrics())}; expected {' or '.join(printed)}"
        )
    return found


def _fits(spec: StudySpec, table: PublishedTable) -> bool:
    """A printed figure is one model's: factors that the table does not vary must be told by it, or vary alone."""
    shared = [level for level in spec.factors.get(table.factor, ()) if table.row_of(level) is not None]
    others = set(spec.factors) - {table.factor} - set(table.fixed)
    known = all(level in spec.factors.get(factor, ()) for factor, level in table.fixed.items())
    return len(shared) >= _FEWEST and known and (not others or spec.design == "one_at_a_time")


def _beside(result: StudyResult, paper: Paper, table: PublishedTable) -> Beside:
    levels = {table.row_of(level): level for level in result.spec.factors[table.factor]}
    cells, _ = counterparts(result, table.factor, tuple(result.spec.factors[table.factor]), dict(table.fixed))
    columns: list[str] = []
    for column in table.columns:
        columns += [column] if "/" in column else [f"{column}, macro", f"{column}, weighted"]
    rows = {
        row: tuple(pair for column in table.columns for pair in _pairs(paper, table, row, column, cells[levels[row]]))
        if row in levels
        else tuple(pair for column in table.columns for pair in _pairs(paper, table, row, column, []))
        for row in table.rows
    }
    notes = [str(each) for each in inconsistencies(paper) if each.table == table.name]
    return Beside(table, tuple(columns), rows, (*notes, *_winners(tuple(columns), rows)))


def _pairs(paper: Paper, table: PublishedTable, row: str, column: str, cells: list[CellResult]) -> Iterator[Pair]:
    """One pair for a class, two for an average."""
    task, _, group = column.partition("/")
    of: Of = "change" if is_change(column) else table.of
    own = _own(cells, task_of(column), of)
    printed = table.figure(row, column)
    if group:
        yield Pair(own[0].get(group) if own else None, printed)
        return
    macro, weighted = averages_of(*own) if own else (None, None)
    both = None if is_change(column) else averages(paper, table, row, task)
    yield Pair(macro, printed)
    yield Pair(weighted, both[1] if both else None)


def _own(cells: list[CellResult], task: str, of: Of) -> tuple[dict[str, float], dict[str, int]] | None:
    """Class -> mean in per cent, and its number of questions; None where the task was not measured."""
    values = values_by_class(cells, task, of) if cells else {}
    if not values:
        return None
    means = {group: _PER_CENT * sum(each) / len(each) for group, each in values.items()}
    return means, {group: len(each) for group, each in values.items()}


def _winners(columns: tuple[str, ...], rows: dict[str, tuple[Pair, ...]]) -> Iterator[str]:
    """Where the mean over classes and that over questions put different rows first."""
    for at, column in enumerate(columns):
        if not column.endswith(", macro") or is_change(column.removesuffix(", macro")):
            continue
        for whose in ("printed", "own"):
            both = {name: (getattr(row[at], whose), getattr(row[at + 1], whose)) for name, row in rows.items()}
            known = {name: pair for name, pair in both.items() if None not in pair}
            if len(known) < _FEWEST:
                continue
            for first, second in _turned(known):
                task = column.removesuffix(", macro")
                yield (
                    f"{task}, {whose} figures: {first} is before {second} by classes "
                    f"({known[first][0]:.1f} and {known[second][0]:.1f}), behind it by questions "
                    f"({known[first][1]:.1f} and {known[second][1]:.1f})"
                )


def _turned(known: dict[str, tuple[float, float]]) -> Iterator[tuple[str, str]]:
    """Neighbours by the first average whose order is the other one by the second."""
    order = sorted(known, key=lambda name: -known[name][0])
    for first, second in pairwise(order):
        if known[first][0] > known[second][0] and known[first][1] < known[second][1]:
            yield first, second


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
