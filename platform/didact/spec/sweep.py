"""`SweepSpec`: one recipe, many trials."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from didact.spec.base import Spec

_Number = TypeVar("_Number", int, float)


def _ascending(bounds: tuple[_Number, _Number]) -> tuple[_Number, _Number]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"bounds must be lower, then higher; found {list(bounds)}")
    return bounds


_Bounds = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Choice(Spec):
    """One of the values, uniformly."""

    choice: tuple[Any, ...] = Field(min_length=1)


class Uniform(Spec):
    """Uniform between two numbers."""

    uniform: _Bounds


class LogUniform(Spec):
    """Uniform in the logarithm; both bounds positive."""

    loguniform: _Bounds

    @field_validator("loguniform")
    @classmethod
    def _positive(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if min(bounds) <= 0:
            raise ValueError(f"bounds must be positive; found {bounds}")
        return bounds


class RandInt(Spec):
    """A whole number, both bounds included."""

    randint: Annotated[tuple[int, int], AfterValidator(_ascending)]


class Grid(Spec):
    """Every value in turn."""

    grid: tuple[Any, ...] = Field(min_length=1)


class Simplex(Spec):
    """Mixture weights: non-negative, summing to one, uniform over all mixes (Dirichlet(1)). For `data.weights` only."""

    simplex: tuple[str, ...] = Field(min_length=2)
    """Names of the recipe's sources that share the weight; a source left out keeps the recipe's own."""

    @field_validator("simplex")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError(f"each source can be named once; found {list(names)}")
        return names


def _kind(value: Any) -> str | None:
    """The key that says which distribution is meant, so that errors speak of that one only."""
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Spec) else ()
    return next((key for key in keys if key in _KINDS), None)


_KINDS = ("choice", "uniform", "loguniform", "randint", "grid", "simplex")
Distribution = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
    | Annotated[RandInt, Tag("randint")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Simplex, Tag("simplex")],
    Discriminator(
        _kind,
        custom_error_type="distribution",
        custom_error_message=f"expected a mapping with one of the keys {', '.join(_KINDS)}",
    ),
]


class SchedulerSpec(Spec):
    """Asynchronous successive halving: trials that lag at a rung are stopped (Li et al., 2018)."""

    grace_steps: int = Field(default=10, ge=1)
    """Steps every trial gets before it may be stopped."""
    reduction_factor: float = Field(default=2.0, gt=1)
    """One of so many trials survives a rung."""


class SweepSpec(Spec):
    """A search: dotted paths into a recipe and their distributions. A YAML under `tune_spaces/` is one of these."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Name of the sweep and its folder; the same name continues an interrupted sweep."""
    recipe: str
    """The recipe that every trial starts from, relative to the search file's folder or the working directory."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fixed changes to the recipe, as dotted paths."""
    space: dict[str, Distribution] = Field(min_length=1)
    """Dotted path into the recipe -> distribution. `data.weights` takes a `simplex` over source names."""
    metric: str = "eval/loss"
    """Metric that trials report during training."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more is better."""
    num_trials: int = Field(default=4, ge=1)
    """Samples from the space (with a grid: repetitions of the whole grid)."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once; default, and never more: as many as the cluster's CPUs or GPUs hold."""
    scheduler: SchedulerSpec | None = SchedulerSpec()
    """Early stopping; null lets every trial run to its end."""
    searcher: Literal["random", "optuna"] = "random"
    """Independent samples, or Optuna's TPE."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search."""
    register_best_as: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Registered model that gets the best trial's adapter as `candidate`."""

    @model_validator(mode="after")
    def _possible(self) -> "SweepSpec":
        for path, distribution in self.space.items():
            if isinstance(distribution, Simplex) != (path == "data.weights"):
                raise ValueError(f"space.{path}: simplex is for data.weights, and data.weights takes a simplex")
            if isinstance(distribution, Grid) and self.searcher == "optuna":
                raise ValueError(f"space.{path}: grid needs searcher 'random'; with optuna use choice")
        return self
