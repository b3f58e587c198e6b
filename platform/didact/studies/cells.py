"""A study and its recipe, checked against each other before anything starts."""

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.errors import SpecError
from didact.spec import FinetuneSpec, StudySpec, read_recipe, set_dotted, validate
from didact.spec.search.levels import not_to_be_varied, settings_of
from didact.studies.metric_names import of_no_task

_LONGEST_NAME = 100
_LISTED = 3
"""Cells that are named beside a problem."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study."""

    levels: dict[str, str]
    """Factor -> level."""
    seed: int
    spec: FinetuneSpec
    """The recipe of its run."""

    @property
    def name(self) -> str:
        """Of its run."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class Study:
    """A study with the recipes of all its cells."""

    spec: StudySpec
    cells: tuple[Cell, ...]
    origin: str
    """The study's file, named in errors."""
    recipe: dict[str, Any]
    """What every cell starts from, before the study changes it."""


def load_study(spec: StudySpec, origin: Path) -> Study:
    """Find the study's recipe and work out every cell's own.

    Args:
        spec: as read from `origin`.
        origin: the study's file; the recipe is looked for beside it, then in the working directory.

    Raises:
        SpecError: no such recipe; a field that is the study's own; or cells that are refused, all of them listed.
    """
    if problems := list(_without_sense(spec)):
        raise SpecError(f"{origin} cannot be used:\n" + "\n".join(f"  - {each}" for each in problems))
    given = read_recipe(spec.recipe, origin)
    recipe = copy.deepcopy(given)
    for path, value in spec.overrides.items():
        set_dotted(recipe, path, value, f"{origin}: overrides")
    cells: list[Cell] = []
    refused: list[tuple[str, dict[str, str]]] = []
    for levels in spec.combinations():
        problems = list(_set_twice(spec, levels))
        for seed in spec.seeds:
            try:
                cells.append(Cell(levels, seed, _recipe_of(spec, recipe, levels, seed, str(origin))))
            except SpecError as error:
                problems += _problems(error, spec.recipe)
        refused += [(each, levels) for each in problems]
    others = [*_of_one_name(cells), *_of_one_recipe(cells)] if not refused else []
    if refused or others:
        num_refused = len({tuple(levels.values()) for _, levels in refused}) * len(spec.seeds) or len(others)
        told = [f"  - {each}" for each in (*_by_problem(spec, refused), *others)]
        raise SpecError(f"{origin}: {num_refused} of {spec.num_cells} cells cannot be run:\n" + "\n".join(told))
    return Study(spec, tuple(cells), str(origin), given)


def _without_sense(spec: StudySpec) -> Iterator[str]:
    """What a new study may not ask; one that has run is read all the same."""
    places = [("overrides", [spec.overrides])]
    places += [(f"factors.{name}", list(levels.values())) for name, levels in spec.factors.items()]
    for where, levels in places:
        problem = not_to_be_varied(path for level in levels for path in settings_of(level))
        if problem is not None:
            yield f"{where}: {problem}"
    if not spec.evaluation.tasks:
        yield "evaluation.tasks: found none; expected what every cell is measured by"
    for place, table in enumerate(spec.tables):
        if table.columns == table.rows:
            yield f"tables.{place}.columns: found {table.columns!r}, which are the rows; expected another factor"
        for factor in {table.rows, table.columns} & table.fixed.keys():
            yield f"tables.{place}.fixed.{factor}: a factor of the table itself cannot be fixed"
    yield from of_no_task(spec)
    names = [table.name for table in spec.tables]
    yield from (f"tables: two are named {name!r}" for name in dict.fromkeys(names) if names.count(name) > 1)


def _problems(error: SpecError, recipe: str) -> Iterator[str]:
    """What keeps a cell's recipe from being used, one mistake each; lines of a file are the recipe's."""
    first, *others = str(error).splitlines()
    for line in others or [first]:
        told = line.removeprefix("  - ").removeprefix("override: ")
        yield f"{recipe}, {told}" if re.match(r"line \d+: ", told) else told


def _by_problem(spec: StudySpec, refused: Sequence[tuple[str, dict[str, str]]]) -> Iterator[str]:
    """Each problem once, with the cells that have it."""
    combinations = spec.combinations()
    for problem in dict.fromkeys(problem for problem, _ in refused):
        mine = list({tuple(each.items()): each for found, each in refused if found == problem}.values())
        shared = {name: level for name, level in mine[0].items() if all(each[name] == level for each in mine)}
        alike = [each for each in combinations if shared.items() <= each.items()]
        if len(mine) == len(combinations):
            yield f"{problem} (all cells)"
        elif len(alike) == len(mine):
            yield f"{problem} (cells with {_told(shared)})"
        else:
            listed = "; ".join(_told(each) for each in mine[:_LISTED])
            yield f"{problem} ({len(mine)} cells: {listed}{'; ...' if len(mine) > _LISTED else ''})"


def _told(levels: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in levels.items())


def _set_twice(spec: StudySpec, levels: Mapping[str, str]) -> Iterator[str]:
    """Fields that one factor sets and a later one sets again, so that the first has no effect."""
    before: dict[str, str] = {}
    for factor, level in levels.items():
        mine = list(settings_of(spec.factors[factor][level]))
        for path, earlier in before.items():
            if any(f"{path}.".startswith(f"{each}.") for each in mine):
                yield f"{earlier} sets {path}, and factors.{factor}.{level} sets it again"
        before |= dict.fromkeys(mine, f"factors.{factor}.{level}")


def _of_one_recipe(cells: Sequence[Cell]) -> Iterator[str]:
    """Cells that would train the same: what differs between them has no effect."""
    first: dict[str, Cell] = {}
    for cell in cells:
        recipe = cell.spec.model_copy(update={"name": "-"}).model_dump_json()
        other = first.setdefault(recipe, cell)
        if other is not cell:
            yield f"{_told(other.levels)} and {_told(cell.levels)} are the same recipe; remove one or change it"


def _of_one_name(cells: Sequence[Cell]) -> list[str]:
    """Cells that would share a run folder, as `a-b` with `c` and `a` with `b-c` do."""
    first: dict[str, Cell] = {}
    return [
        f"cells {list(first[cell.name.lower()].levels.values())} and {list(cell.levels.values())} would both be the "
        f"run {cell.name}; name a level otherwise"
        for cell in cells
        if first.setdefault(cell.name.lower(), cell) is not cell
    ]


def _recipe_of(
    spec: StudySpec, recipe: dict[str, Any], levels: Mapping[str, str], seed: int, origin: str
) -> FinetuneSpec:
    values = copy.deepcopy(recipe)
    for factor, level in levels.items():
        for path, value in spec.factors[factor][level].items():
            set_dotted(values, path, copy.deepcopy(value), f"factors.{factor}.{level}")
    set_dotted(values, "training.seed", seed, origin)
    values |= {"name": _name(spec.name, levels, seed), "register_as": None}
    values["evaluation"] = spec.evaluation.model_dump(mode="json", exclude_unset=True)
    found: FinetuneSpec = validate(FinetuneSpec, values, origin)
    rows = any(source.held_out_rows for source in found.data.sources)
    if not rows and any(task.task == "held_out" for task in spec.evaluation.tasks):
        raise SpecError("evaluation.tasks: held_out has no rows; set held_out_rows of a source, or other tasks")
    return found


def _name(study: str, levels: Mapping[str, str], seed: int) -> str:
    """Readable, and short enough for a folder: what is cut off is replaced by a digest of the whole."""
    name = "-".join([study, *levels.values(), f"s{seed}"]).replace("+", ".")
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: _LONGEST_NAME - 11]}-{digest}"
