"""What a study will do, before anything starts: its cells, their steps and tokens, memory, time where it is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.display import Shown
from didact.errors import DidactError
from didact.evaluation import task_texts
from didact.pages import short, spent
from didact.preparation import Plan, prepare_data
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.studies.cells import Cell, Study
from didact.studies.results import is_measured
from didact.tracking import effective_records

_RATE = "train/tokens_per_second"


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What is known of a cell before it runs."""

    cell: Cell
    is_measured: bool
    """It has its report and is not run again."""
    steps: int | None
    """Optimizer steps; None where only the data would tell and it is not here."""
    tokens: float | None
    """Tokens it will see; None without its data."""
    gib: float | None
    """Memory of a worker with the longest samples; None without base or data."""
    unknown: str = ""
    """What keeps memory and tokens from being told here."""


@dataclass(frozen=True, slots=True)
class StudyPlan(Shown):
    """A study before it runs."""

    study: Study
    cells: tuple[CellPlan, ...]
    tokens_per_second: float | None
    """Of the cells that have been trained; None before the first."""

    @override
    def __rich__(self) -> Group:
        table = Table(title=f"study {self.study.spec.name}", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("cell", overflow="fold")
        for heading in ("steps", "tokens", "GiB a worker"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        for each in self.cells:
            known = [
                "-" if each.steps is None else f"{each.steps:,}",
                "-" if each.tokens is None else short(each.tokens),
                "-" if each.gib is None else f"{each.gib:.2f}",
            ]
            table.add_row(Text(each.cell.name), *known, Text("measured" if each.is_measured else each.unknown))
        return Group(table, *(Text(line) for line in self.lines()))

    def lines(self) -> Iterator[str]:
        """The whole in words."""
        waiting = [each for each in self.cells if not each.is_measured]
        spec = self.study.spec
        yield (
            f"{len(self.cells)} cells: {' x '.join(f'{len(levels)} {name}' for name, levels in spec.factors.items())}, "
            f"design {spec.design}, {len(spec.seeds)} {'seed' if len(spec.seeds) == 1 else 'seeds'}; "
            f"{len(waiting)} to run"
        )
        tokens = [each.tokens for each in waiting]
        known = [each for each in tokens if each is not None]
        if known:
            rest = f", {len(tokens) - len(known)} cells not known" if len(known) < len(tokens) else ""
            yield f"tokens     {short(sum(known))} to see{rest}"
        steps = {each.steps for each in self.cells if each.steps is not None}
        if steps:
            budget = "equal budgets" if len(steps) == 1 else "budgets differ"
            yield f"budget     {budget}: {', '.join(f'{each:,}' for each in sorted(steps))} optimizer steps a cell"
        if known and self.tokens_per_second:
            yield f"time       about {spent(sum(known) / self.tokens_per_second)} of training, one cell after the other"
        elif waiting:
            yield "time       known once a first cell has been trained"


def plan_study(study: Study, runs_dir: Path) -> StudyPlan:
    """Work out every cell, as far as its base and data are here; prepares data, trains nothing.

    Args:
        study: as loaded.
        runs_dir: where the study's folder lies or will lie.
    """
    folder = runs_dir / study.spec.name / "cells"
    known: dict[str, tuple[int | None, float | None, float | None, str]] = {}
    cells = []
    for cell in study.cells:
        key = cell.spec.model_copy(update={"name": "cell"}).model_dump_json(exclude={"training": {"seed"}})
        if key not in known:
            known[key] = _planned(cell.spec)
        cells.append(CellPlan(cell, is_measured(Run(folder / cell.name)), *known[key]))
    return StudyPlan(study, tuple(cells), _rate(study, folder))


def _planned(spec: FinetuneSpec) -> tuple[int | None, float | None, float | None, str]:
    try:
        plan = Plan.of(spec, prepare_data(spec, task_texts=task_texts))
    except DidactError as error:
        return spec.training.steps, None, None, str(error).splitlines()[0]
    tokens = sum(each.tokens_seen for each in plan.data.sources)
    return plan.data.num_steps, tokens, plan.largest.total_gib, ""


def _rate(study: Study, folder: Path) -> float | None:
    """Tokens a second of cells that have been trained, all workers together."""
    found = []
    for cell in study.cells:
        steps = Run(folder / cell.name).steps
        records = effective_records(steps) if steps.is_file() else []
        rates = [
            each.metrics["train/tokens_per_second"] for each in records if "train/tokens_per_second" in each.metrics
        ]
        found += [median(rates) * cell.spec.placement.max_workers] if rates else []
    return median(found) if found else None
