"""A study and its recipe, checked against each other before anything starts."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.errors import SpecError
from didact.spec import FinetuneSpec, StudySpec, read_recipe, set_dotted, validate

_LONGEST_NAME = 100


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
        SpecError: no such recipe; or cells whose recipes are refused, all of them listed.
    """
    given = read_recipe(spec.recipe, origin)
    recipe = copy.deepcopy(given)
    for path, value in spec.overrides.items():
        set_dotted(recipe, path, value, f"{origin}: overrides")
    cells, refused = [], []
    for levels in spec.combinations():
        for seed in spec.seeds:
            try:
                cells.append(Cell(levels, seed, _recipe_of(spec, recipe, levels, seed, str(origin))))
            except SpecError as error:
                refused.append(str(error))
    refused += _of_one_name(cells)
    if refused:
        raise SpecError(
            f"{len(refused)} of {spec.num_cells} cells cannot be run:\n" + "\n".join(dict.fromkeys(refused))
        )
    return Study(spec, tuple(cells), str(origin), given)


def _of_one_name(cells: Sequence[Cell]) -> list[str]:
    """Cells that would share a run folder, as `a-b` with `c` and `a` with `b-c` do."""
    first: dict[str, Cell] = {}
    return [
        f"cells {list(first[cell.name].levels.values())} and {list(cell.levels.values())} would both be the run "
        f"{cell.name}; name a level otherwise"
        for cell in cells
        if first.setdefault(cell.name, cell) is not cell
    ]


def _recipe_of(
    spec: StudySpec, recipe: Mapping[str, Any], levels: Mapping[str, str], seed: int, origin: str
) -> FinetuneSpec:
    values = copy.deepcopy(dict(recipe))
    where = f"{origin}: cell {', '.join(f'{factor}={level}' for factor, level in levels.items())}"
    for factor, level in levels.items():
        for path, value in spec.factors[factor][level].items():
            set_dotted(values, path, copy.deepcopy(value), f"{where}: factors.{factor}.{level}")
    set_dotted(values, "training.seed", seed, where)
    values |= {"name": _name(spec.name, levels, seed), "register_as": None}
    values["evaluation"] = spec.evaluation.model_dump(mode="json", exclude_unset=True)
    found: FinetuneSpec = validate(FinetuneSpec, values, where)
    return found


def _name(study: str, levels: Mapping[str, str], seed: int) -> str:
    """Readable, and short enough for a folder: what is cut off is replaced by a digest of the whole."""
    name = "-".join([study, *levels.values(), f"s{seed}"]).replace("+", ".")
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{name[: _LONGEST_NAME - 11]}-{digest}"
