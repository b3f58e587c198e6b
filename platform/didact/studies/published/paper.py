"""Figures that others published, as data: how their averages can be read, and where they do not fit together."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, Self

import yaml
from pydantic import Field, model_validator

from didact.spec import validate
from didact.spec.base import Spec

_CHANGE = " change"
Printed = tuple[float | None, ...]
"""A row, in the order of the columns; None where the paper prints nothing."""


class PublishedTable(Spec):
    """One table or figure. A column is `task/class`, `task` for the average, or `task change` for what tuning did."""

    name: str
    title: str
    factor: str
    """What the rows differ in, by the name that studies use."""
    of: Literal["adapter", "base"] = "adapter"
    """Whether rows are tuned models or bases as they are."""
    fixed: dict[str, str] = Field(default_factory=dict)
    """Levels of other factors that all rows have."""
    columns: tuple[str, ...]
    rows: dict[str, Printed]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for name, row in self.rows.items():
            if len(row) != len(self.columns):
                raise ValueError(f"rows.{name}: found {len(row)} figures; expected {len(self.columns)}")
        return self

    def row_of(self, level: str) -> str | None:
        """The row that a study's level means, whatever case and marks it is written with."""
        return next((row for row in self.rows if plain(row) == plain(level)), None)

    def figure(self, row: str, column: str) -> float | None:
        """A printed figure; None where there is none."""
        return self.rows[row][self.columns.index(column)] if column in self.columns and row in self.rows else None


class Paper(Spec):
    """What one paper printed, in per cent."""

    title: str
    source: str
    digits: dict[str, int]
    """Task -> figures after the point."""
    sizes: dict[str, dict[str, int]]
    """Task -> class -> number of questions."""
    tables: tuple[PublishedTable, ...]
    same: tuple[tuple[str, ...], ...] = ()
    """Places (`table 4/LoRA`) that print figures of one model."""

    def table(self, name: str) -> PublishedTable:
        """By its name in the paper."""
        return next(each for each in self.tables if each.name == name)


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """A printed figure that others of the paper contradict by more than rounding."""

    table: str
    row: str
    column: str
    printed: float
    expected: float
    why: str

    def __str__(self) -> str:
        return f"{self.table}, {self.row}, {self.column}: {self.printed:g} is printed, but {self.why}"


@cache
def published_paper() -> Paper:
    """The study of Chinese instruction tuning that didact's shipped studies follow."""
    text = resources.files("didact.studies.published").joinpath("paper.yaml").read_text(encoding="utf-8")
    found: Paper = validate(Paper, yaml.safe_load(text), "paper.yaml")
    return found


def plain(name: str) -> str:
    """Letters, digits and pluses of a name: `xP3/zh` and `xP3_zh` are one, `CoT` and `CoT*` are not."""
    return re.sub(r"[^a-z0-9+*]", "", name.lower())


def task_of(column: str) -> str:
    """The task of a column."""
    return column.partition("/")[0].removesuffix(_CHANGE)


def is_change(column: str) -> bool:
    """Whether a column says what tuning changed."""
    return column.endswith(_CHANGE)


def averages(paper: Paper, table: PublishedTable, row: str, task: str) -> tuple[float, float] | None:
    """The mean over classes (macro) and over questions (weighted); None unless all classes of the task are printed."""
    sizes = paper.sizes[task]
    classes = {name: table.figure(row, f"{task}/{name}") for name in sizes}
    known = {name: value for name, value in classes.items() if value is not None}
    if len(known) < len(sizes):
        return None
    return averages_of(known, sizes)


def averages_of(values: Mapping[str, float], sizes: Mapping[str, int]) -> tuple[float, float]:
    """Mean over classes, and mean in which each counts by its number of questions."""
    weighted = sum(value * sizes[name] for name, value in values.items()) / sum(sizes[name] for name in values)
    return sum(values.values()) / len(values), weighted


def inconsistencies(paper: Paper) -> list[Inconsistency]:
    """Averages that are not those of their row, changes that are no difference, one model with two figures."""
    return [*_averages(paper), *_changes(paper), *_twice(paper)]


def _averages(paper: Paper) -> Iterator[Inconsistency]:
    for table in paper.tables:
        for task in paper.sizes:
            for row in table.rows:
                printed, found = table.figure(row, task), averages(paper, table, row, task)
                # Half a unit each for the average and for what it is the mean of.
                if printed is not None and found and not _equal(printed, found[0], paper.digits[task], halves=2):
                    why = f"the mean of its classes is {found[0]:.{paper.digits[task]}f}"
                    yield Inconsistency(table.name, row, task, printed, found[0], why)


def _changes(paper: Paper) -> Iterator[Inconsistency]:
    for table in paper.tables:
        for column in filter(is_change, table.columns):
            task = task_of(column)
            digits = paper.digits[task]
            for row in table.rows:
                printed, after, before = table.figure(row, column), table.figure(row, task), _before(paper, row, task)
                if printed is None or after is None or before is None:
                    continue
                if not _equal(printed, after - before, digits, halves=3):
                    why = f"{after:g} - {before:g} is {after - before:.{digits}f}"
                    yield Inconsistency(table.name, row, column, printed, after - before, why)


def _before(paper: Paper, row: str, task: str) -> float | None:
    for table in paper.tables:
        own = table.row_of(row) if table.of == "base" and task in table.columns else None
        if own is not None:
            return table.figure(own, task)
    return None


def _twice(paper: Paper) -> Iterator[Inconsistency]:
    for places in paper.same:
        first: dict[str, tuple[float, str]] = {}
        for place in places:
            name, _, row = place.partition("/")
            table = paper.table(name)
            for column in table.columns:
                value = table.figure(row, column)
                if value is None or is_change(column):
                    continue
                known, where = first.setdefault(column, (value, place))
                if known != value:
                    yield Inconsistency(name, row, column, value, known, f"{where} prints {known:g} for the same model")


def _equal(printed: float, expected: float, digits: int, halves: int) -> bool:
    return abs(printed - expected) <= halves * 0.5 * 10**-digits + 1e-9
