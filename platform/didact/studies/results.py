"""What a study found: the report of each cell, read from its run folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.display import Shown
from didact.errors import DataError, RunError, SpecError
from didact.evaluation import EvalReport
from didact.evaluation.report import ADAPTER
from didact.files import write_json
from didact.runs import Run
from didact.spec import StudySpec, validate
from didact.studies.cells import Study
from didact.studies.metric_names import unmeasured
from didact.tracking import effective_records

Status = Literal["finished", "incomplete", "failed", "not run"]
"""`incomplete`: measured, but not all questions have an answer and a score; such cells are shown and never averaged."""


@dataclass(frozen=True, slots=True)
class CellResult:
    """One run of a study and what it was measured to be."""

    name: str
    levels: dict[str, str]
    """Factor -> level."""
    seed: int
    status: Status
    run: Path
    """Its run folder."""
    report: EvalReport | None = None
    """None unless it was measured."""
    curve: tuple[tuple[int, float], ...] = ()
    """(optimizer step, training loss), ascending."""
    seconds: float = 0.0
    """From the first logged step to the last."""
    tokens: float = 0.0
    """That it was trained on, as often as it saw them."""
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class StudyResult(Shown):
    """A study with all its cells, in the order of the file."""

    spec: StudySpec
    cells: tuple[CellResult, ...]
    folder: Path = Path()
    """The study's own."""

    @override
    def __rich__(self) -> Table:
        """Every cell with its figures."""
        table = Table(title=f"study {self.spec.name}", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("cell", overflow="fold")
        for metric in self.metrics():
            table.add_column(metric.removeprefix("eval/"), justify="right")
        table.add_column("status", overflow="fold")
        for cell in self.cells:
            figures = cell.report.metrics(ADAPTER) if cell.report is not None else {}
            shown = [f"{figures[name]:.4g}" if name in figures else "-" for name in self.metrics()]
            told = f"{cell.status}: {cell.error}" if cell.error else cell.status
            table.add_row(Text(cell.name), *shown, Text(told))
        return table

    @property
    def measured(self) -> tuple[CellResult, ...]:
        """Cells whose figures count."""
        return tuple(cell for cell in self.cells if cell.status == "finished")

    def metrics(self) -> tuple[str, ...]:
        """What the study's tables show where they name no metric: of each task the one that says how good answers are.

        Losses on held-out rows come first.
        """
        reports = [cell.report for cell in self.measured if cell.report is not None]
        found = ["eval/loss"] if reports and all("eval/loss" in each.metrics(ADAPTER) for each in reports) else []
        found += [f"eval/{task.name}/{task.metric}" for report in reports for task in report.tasks if task.metric]
        known = {name for report in reports for name in report.metrics(ADAPTER)}
        return tuple(name for name in dict.fromkeys(found) if name in known)

    @property
    def measured_metrics(self) -> frozenset[str]:
        """Every metric that a measured cell has, of whichever model."""
        reports = [cell.report for cell in self.measured if cell.report is not None]
        return frozenset(name for report in reports for figures in report.metrics_of.values() for name in figures)

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Metrics that its tables ask for and no measured cell has, in words; none before a cell is measured."""
        known = self.measured_metrics
        return unmeasured(self.spec, known) if known else ()


def read_study(folder: Path) -> StudyResult:
    """A study from its folder, finished or not.

    Raises:
        RunError: the folder holds no study.
        DataError: what it holds cannot be read.
    """
    kept = kept_study(folder)
    if kept is None:
        raise RunError(f"{folder} holds no study: there is no study.json. Start one with: didact study run FILE")
    found = (_cell(folder / "cells" / name, levels, seed, kept.errors.get(name)) for name, levels, seed in kept.cells)
    return StudyResult(kept.spec, tuple(found), folder)


@dataclass(frozen=True, slots=True)
class Kept:
    """A study as its folder says."""

    spec: StudySpec
    cells: tuple[tuple[str, dict[str, str], int], ...]
    """Name, levels and seed of each."""
    errors: dict[str, str]
    """Cell -> why it failed."""
    recipe: dict[str, Any] | None
    """None in studies of before recipes were kept."""


def kept_study(folder: Path) -> Kept | None:
    """What `keep_study` wrote down; None where there is nothing.

    Raises:
        DataError: it cannot be read.
    """
    file = folder / "study.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        spec: StudySpec = validate(StudySpec, values["spec"], str(file))
        cells = tuple((str(each["name"]), dict(each["levels"]), int(each["seed"])) for each in values["cells"])
        wrong = [name for name, levels, _ in cells if not _is_a_name(name) or levels.keys() != spec.factors.keys()]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no cell of this study")
        return Kept(spec, cells, dict(values.get("errors", {})), values.get("recipe"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (SpecError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise DataError(
            f"{file} cannot be read ({type(error).__name__}: {error}). The cells beside it are whole runs: move it "
            "away, and didact study run FILE writes it anew and runs only what has no result"
        ) from error


def _is_a_name(name: str) -> bool:
    return name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)


def keep_study(study: Study, folder: Path, errors: dict[str, str]) -> None:
    """Write down what the study is, for `read_study`, and why cells failed."""
    write_json(
        folder / "study.json",
        {
            "spec": study.spec.model_dump(mode="json"),
            "recipe": study.recipe,
            "cells": [{"name": cell.name, "levels": cell.levels, "seed": cell.seed} for cell in study.cells],
            "errors": errors,
        },
    )


def is_measured(run: Run) -> bool:
    """Whether a cell has its report, so that it is not run again."""
    return run.report.is_file()


def _cell(path: Path, levels: dict[str, str], seed: int, error: str | None) -> CellResult:
    run = Run(path)
    records = effective_records(run.steps) if run.steps.is_file() else []
    curve = tuple((each.step, each.metrics["train/loss"]) for each in records if "train/loss" in each.metrics)
    seconds = (records[-1].time_ms - records[0].time_ms) / 1000 if records else 0.0
    tokens = sum(each.metrics.get("train/tokens", 0.0) for each in records)
    report: EvalReport | None = None
    status: Status = "failed" if error else "not run"
    if is_measured(run):
        try:
            report = EvalReport.load(run.report)
            status = "finished" if report.is_complete else "incomplete"
        except DataError as damaged:
            status, error = "failed", str(damaged)
    return CellResult(path.name, levels, seed, status, path, report, curve, seconds, tokens, error)
