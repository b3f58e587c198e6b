"""What a study will do, before anything starts: its cells, their steps and tokens, memory, time where it is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact.capacity import Cluster
from didact.connect import cluster_to_join
from didact.display import Shown
from didact.errors import DidactError
from didact.evaluation import task_texts
from didact.pages import short, spent
from didact.preparation import Plan, prepare_data
from didact.runs import Run
from didact.spec import ForecastSpec
from didact.studies.cells import Cell, Study
from didact.studies.forecast import forecast_cell
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
    gpus: int | None = None
    """The fewest accelerators that it fits on; None where that was not asked, or none are enough."""
    hours: float | None = None
    """Of one accelerator, training alone, as `forecast` reckons."""
    too_large: str = ""
    """Why it does not fit the machines that are there; `forecast` counts `gpus` instead."""
    lacks: tuple[str, ...] = ()
    """What its placement asks for and is not there."""

    @property
    def hindrances(self) -> tuple[str, str]:
        """What keeps it from being planned whole, and from being run here."""
        return self.unknown, self.too_large


@dataclass(frozen=True, slots=True)
class StudyPlan(Shown):
    """A study before it runs."""

    study: Study
    cells: tuple[CellPlan, ...]
    tokens_per_second: float | None
    """Of the cells that have been trained; None before the first."""

    @override
    def __rich__(self) -> Group:
        foretold = self.study.spec.forecast is not None
        table = Table(title=f"study {self.study.spec.name}", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("cells", overflow="fold")
        for heading in ("steps", "tokens", "GiB a worker", *(("GPUs", "GPU hours") if foretold else ())):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("", overflow="fold")
        for name, alike in self._combinations():
            each = alike[0]
            known = [
                _or_dash(each.steps, "{:,}"),
                "-" if each.tokens is None else short(each.tokens),
                _or_dash(each.gib, "{:.2f}"),
                *((_or_dash(each.gpus, "{}"), _or_dash(each.hours, "{:,.1f}")) if foretold else ()),
            ]
            done = sum(cell.is_measured for cell in alike)
            waiting = next((cell for cell in alike if not cell.is_measured), None)
            measured = f"{done} of {len(alike)} measured" if done else ""
            told = "; ".join(filter(None, (measured, *(waiting.hindrances if waiting else ()))))
            table.add_row(Text(name), *known, Text(told))
        return Group(table, *(Text(line) for line in self.lines()))

    def _combinations(self) -> Iterator[tuple[str, list[CellPlan]]]:
        """Cells that differ in the seed alone, named by the levels in which they differ from the defaults."""
        spec = self.study.spec
        found: dict[str, list[CellPlan]] = {}
        for each in self.cells:
            own = {factor: level for factor, level in each.cell.levels.items() if level != spec.reference(factor)}
            told = own if spec.design == "one_at_a_time" else each.cell.levels
            found.setdefault(", ".join(f"{name} {level}" for name, level in told.items()) or "defaults", []).append(
                each
            )
        yield from found.items()

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
            of_cells = {each.tokens for each in self.cells if each.tokens}
            span = "" if len(of_cells) < 2 else f", {short(min(of_cells))} to {short(max(of_cells))} tokens"
            told = ", ".join(f"{each:,}" for each in sorted(steps))
            yield f"budget     {budget}: {told} optimizer steps a cell{span}"
        for base, why in {each.cell.spec.model.base: each.too_large for each in waiting if each.too_large}.items():
            yield f"too large  {base} {why}"
        yield from dict.fromkeys(line for each in waiting for line in each.lacks)
        if spec.forecast is not None:
            yield from self._foretold(spec.forecast, waiting)
        elif known and self.tokens_per_second:
            yield f"time       about {spent(sum(known) / self.tokens_per_second)} of training, one cell after the other"
        elif waiting:
            yield "time       known once a first cell has been trained"

    def _foretold(self, given: ForecastSpec, waiting: Sequence[CellPlan]) -> Iterator[str]:
        hours = sum(each.hours for each in waiting if each.hours is not None)
        wide = hours / given.gpus
        yield f"time       {hours:,.0f} GPU hours of training: {wide:,.1f} hours on {given.gpus} GPUs, plus evaluation"
        yield f"GPUs       of {given.memory_gib:g} GiB, reaching {given.utilisation:.0%} of {given.tflops:g} TFLOP/s"
        yield f"reckoned   with {given.tokens_per_row:g} tokens a row, {given.learned_share:.0%} of them learned"
        large = {each.cell.spec.model.base: each.gpus for each in self.cells if each.gpus is None and not each.unknown}
        for base in large:
            yield f"too large  {base} fits on no 64 such GPUs"
        short_of = {each.cell.spec.model.base for each in self.cells if (each.gpus or 0) > given.gpus}
        yield from (f"too large  {base} needs more GPUs than there are" for base in sorted(short_of))


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def plan_study(study: Study, runs_dir: Path) -> StudyPlan:
    """Work out every cell; trains nothing.

    With `forecast` from counts alone, and nothing is downloaded. Without, as far as base and data are here, and data is
    prepared.

    Args:
        study: as loaded.
        runs_dir: where the study's folder lies or will lie.
    """
    folder = runs_dir / study.spec.name / "cells"
    cluster = cluster_to_join() if study.spec.forecast is None else None
    known: dict[str, CellPlan] = {}
    cells = []
    for cell in study.cells:
        key = cell.spec.model_copy(update={"name": "cell"}).model_dump_json(exclude={"training": {"seed"}})
        if key not in known:
            known[key] = _planned(cell, study.spec.forecast, cluster)
        cells.append(replace(known[key], cell=cell, is_measured=is_measured(Run(folder / cell.name))))
    return StudyPlan(study, tuple(cells), _rate(study, folder))


def _planned(cell: Cell, given: ForecastSpec | None, cluster: Cluster | None) -> CellPlan:
    spec = cell.spec
    try:
        if given is not None:
            found = forecast_cell(spec, given)
            gpus = found.fit.count if found.fit else None
            return CellPlan(cell, False, found.steps, found.tokens, found.gib, gpus=gpus, hours=found.hours)
        plan = Plan.of(spec, prepare_data(spec, task_texts=task_texts), cluster=cluster)
    except DidactError as error:
        return CellPlan(cell, False, spec.training.steps, None, None, str(error).splitlines()[0])
    tokens = sum(each.tokens_seen for each in plan.data.sources)
    return CellPlan(
        cell,
        False,
        plan.data.num_steps,
        tokens,
        plan.largest.total_gib,
        too_large=plan.too_large() or "",
        lacks=tuple(plan.lacks()),
    )


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
