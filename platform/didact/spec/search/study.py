"""`StudySpec`: one recipe in many variants, all measured alike."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from didact.spec.base import Spec
from didact.spec.evaluation import EvaluationSpec
from didact.spec.search.fractions import MOST_TO_CHOOSE_FROM, chosen_combinations, fewest_runs, num_chosen
from didact.spec.search.levels import Factor, Name

_MOST_CELLS = 10_000
"""Of one study: more are a mistake in its file."""


class TableSpec(Spec):
    """A table of the study: levels of one factor down, levels of another or metrics across."""

    name: str = Field(min_length=1)
    """Its title."""
    rows: str
    """The factor whose levels are the rows."""
    columns: str | None = None
    """The factor whose levels are the columns; default: the metrics."""
    of: Literal["adapter", "base", "change"] = "adapter"
    """What was trained, the base before it was, or the difference that training made."""
    metrics: tuple[str, ...] = ()
    """Such as `eval/mmcu/accuracy`; default: the one of each task. With a factor across, the first is shown."""
    fixed: dict[Name, Name] = Field(default_factory=dict)
    """Levels of other factors that the cells must have; the other factors are averaged over."""


class ForecastSpec(Spec):
    """What `study plan` reckons with where data and bases are not on this machine: nothing is downloaded for a plan.

    The defaults are those of a machine of A100s. On H100 and H200 didact reaches 38 to 47% of the chip's dense
    bfloat16 rate with a 7B base (docs/gpu.md).
    """

    rows: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Source -> its rows, where neither `max_rows` nor a card tells them."""
    bases: dict[str, str] = Field(default_factory=dict)
    """Base that is not here yet -> a published one of the same sizes."""
    tokens_per_row: float = Field(default=256, gt=0)
    """Mean length of a conversation, prompt included."""
    learned_share: float = Field(default=0.6, gt=0, le=1)
    """Share of the tokens that is learned."""
    gpus: int = Field(default=8, ge=1)
    """Accelerators of the cluster."""
    memory_gib: float = Field(default=80, gt=0)
    """Of one accelerator."""
    tflops: float = Field(default=312, gt=0)
    """Its dense bfloat16 rate, in 10^12 operations a second."""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """Share of that rate which training reaches."""


class StudySpec(Spec):
    """A study: factors with their levels, which combinations are run, and what all of them are measured by.

    A YAML under `studies/` is one of these.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Name of the study and its folder; the same name continues an interrupted study."""
    recipe: str
    """The recipe that every cell starts from, relative to the study's folder or the working directory."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Changes to the recipe in every cell, as dotted paths."""
    factors: dict[Name, Factor]
    """Factor -> level -> dotted path -> value. `rank: {adapter.r: [4, 8]}` is short for a level a value."""
    design: Literal["full", "one_at_a_time", "fractional", "listed"] = "full"
    """All combinations; each factor varied from the defaults while the others stay; a balanced `fraction` of all
    combinations; or the cells that are listed."""
    fraction: float = Field(default=0.5, gt=0, lt=1)
    """Share of all combinations that the design `fractional` runs; at least as many as tell all levels apart."""
    defaults: dict[Name, Name] = Field(default_factory=dict)
    """Factor -> level of `one_at_a_time` and of what listed cells leave out; default: each factor's first level."""
    cells: tuple[dict[Name, Name], ...] = ()
    """Factor -> level of each cell of the design `listed`, and of more cells beside those of `one_at_a_time` and
    `fractional`."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    """Every combination is trained once with each."""
    evaluation: EvaluationSpec
    """What every cell is measured by."""
    tables: tuple[TableSpec, ...] = ()
    """Tables wanted; default: one a factor, its levels down and the metrics across."""
    forecast: ForecastSpec | None = None
    """How `study plan` reckons with data and bases that are not here; left out, it prepares the data."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Cells at once; default, and never more: as many as the cluster has room for. With `fused`, as many as are trained
    together; default 8."""
    fused: bool = False
    """Train cells of plain LoRA on one base together in one worker, as `fused` of a search; the others one by one."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.factors:
            raise ValueError("factors: a study needs one or more; found {}")
        problems = [*self._unknown_levels(), *self._unknown_factors()]
        if self.design == "listed" and not self.cells:
            problems.append("design: listed needs cells; list factor and level of each")
        if self.design == "full" and self.cells:
            problems.append("cells: the design full has all combinations; for some of them, set design: listed")
        if len(set(self.seeds)) < len(self.seeds):
            problems.append(f"seeds: each once; found {list(self.seeds)}")
        if self.design == "fractional":
            problems += self._no_fraction()
        if not problems and self.num_cells > _MOST_CELLS:
            problems.append(
                f"factors: {self.num_cells:,} cells; expected at most {_MOST_CELLS:,}. With design: one_at_a_time each "
                "factor is varied alone"
            )
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self

    def _no_fraction(self) -> Iterator[str]:
        everything, needed = math.prod(self._sizes), fewest_runs(self._sizes)
        if num_chosen(self._sizes, self.fraction, everything) >= everything:
            yield (
                f"design: fractional has nothing to leave out: {everything} combinations, {needed} of which tell the "
                f"levels apart, and fraction {self.fraction:g}; set design: full"
            )
        if everything > MOST_TO_CHOOSE_FROM:
            yield f"design: fractional chooses from at most {MOST_TO_CHOOSE_FROM:,} combinations; found {everything:,}"

    @property
    def _sizes(self) -> list[int]:
        return [len(levels) for levels in self.factors.values()]

    def _unknown_levels(self) -> Iterator[str]:
        places = [("defaults", self.defaults)]
        places += [(f"cells.{place}", cell) for place, cell in enumerate(self.cells)]
        places += [(f"tables.{place}.fixed", table.fixed) for place, table in enumerate(self.tables)]
        for where, named in places:
            for factor, level in named.items():
                if factor not in self.factors:
                    yield f"{where}: there is no factor {factor!r}; expected some of {list(self.factors)}"
                elif level not in self.factors[factor]:
                    known = list(self.factors[factor])
                    yield f"{where}.{factor}: found {level!r}; expected one of the levels {known}"

    def _unknown_factors(self) -> Iterator[str]:
        for place, table in enumerate(self.tables):
            for named, where in ((table.rows, "rows"), (table.columns, "columns")):
                if named is not None and named not in self.factors:
                    yield f"tables.{place}.{where}: found {named!r}; expected one of {list(self.factors)}"

    def reference(self, factor: str) -> str:
        """The level that the others of a factor are compared with."""
        return self.defaults.get(factor, next(iter(self.factors[factor])))

    def combinations(self) -> list[dict[str, str]]:
        """Factor -> level of every combination, each once, in the order of the file."""
        defaults = {factor: self.reference(factor) for factor in self.factors}
        found: list[dict[str, str]] = []
        if self.design == "full":
            found = [dict(zip(self.factors, each, strict=True)) for each in product(*self.factors.values())]
        elif self.design == "one_at_a_time":
            found = [defaults]
            found += [{**defaults, factor: level} for factor, levels in self.factors.items() for level in levels]
        elif self.design == "fractional":
            # The reference level first, so that the defaults are one of the combinations.
            ordered = [sorted(levels, key=defaults[name].__ne__) for name, levels in self.factors.items()]
            for places in chosen_combinations(self._sizes, self.fraction):
                chosen = [levels[at] for levels, at in zip(ordered, places, strict=True)]
                found.append(dict(zip(self.factors, chosen, strict=True)))
        found += [{**defaults, **cell} for cell in self.cells]
        return list({tuple(each.items()): each for each in found}.values())

    @property
    def num_cells(self) -> int:
        """Runs of the whole study."""
        if self.design == "full":
            return math.prod(self._sizes) * len(self.seeds)
        return len(self.combinations()) * len(self.seeds)
