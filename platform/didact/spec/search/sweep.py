"""`SweepSpec`: one recipe, many trials."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from didact.spec.base import Spec
from didact.spec.search.budget import parse_budget
from didact.spec.search.proxy import ProxySpec
from didact.spec.search.schedulers import HalvingSpec, PopulationSpec, Scheduler
from didact.spec.search.space import Choice, Derived, Distribution, Grid, Mixture, Simplex, in_order

COSTS = ("cost/tokens", "cost/seconds", "cost/steps")
"""What a trial costs, as metrics: tokens that were trained on, seconds of training, optimizer steps."""
Mode = Literal["min", "max"]
SchedulerSpec = HalvingSpec
"""Its name in what interrupted sweeps of earlier versions have pickled."""


class GoalSpec(Spec):
    """One thing that is to be small or large."""

    metric: str | None = None
    """A metric that trials report."""
    sum: dict[str, float] = Field(default_factory=dict)
    """In its place several metrics, with their weights in a sum."""
    mode: Mode = "min"
    """Whether less or more is better."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.metric is None) != any(self.sum.values()):
            raise ValueError("give metric, or a sum in which a weight is not 0; one of both")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Metric -> its weight in the goal."""
        return self.sum if self.metric is None else {self.metric: 1.0}

    @property
    def name(self) -> str:
        """The metric, or the sum as it is written on paper."""
        return self.metric or " + ".join(f"{weight:g} {metric}" for metric, weight in self.sum.items())


class ConstraintSpec(Spec):
    """What a trial must keep to be the best."""

    metric: str
    """A metric that trials report."""
    at_most: float | None = None
    """Largest value that is allowed."""
    at_least: float | None = None
    """Least value that is allowed."""

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give at_most or at_least, one of both")
        return self


class ExpectedImprovementSpec(Spec):
    """End a search when its model expects next to nothing of more trials (Jones et al., 1998)."""

    below: float = Field(default=0.01, gt=0, lt=1)
    """Share of the best value of the goal that counts as next to nothing."""
    draws: int = Field(default=3, ge=1)
    """As many draws, one after the other, must promise less than that."""


class ConfirmSpec(Spec):
    """The best trials once more, with seeds that the search has not seen, beside mixtures or settings nobody searched.

    These are the uniform and the proportional mixture with the best trial's other settings; where the space draws no
    mixture, the recipe as it is.
    """

    top: int = Field(default=3, ge=1)
    """Trials that are run again."""
    seeds: int = Field(default=2, ge=1)
    """Runs of each, one a seed; the seed decides adapter, order, chosen and held-out rows. One says nothing of
    chance."""
    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps of these runs; default: as long as a trial that is not stopped."""


class SweepSpec(Spec):
    """A search: dotted paths into a recipe and their distributions. A YAML under `tune_spaces/` is one of these."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Name of the sweep and its folder; the same name continues an interrupted sweep."""
    recipe: str
    """The recipe that every trial starts from, relative to the search file's folder or the working directory."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Fixed changes to the recipe, as dotted paths."""
    space: dict[str, Distribution] = Field(min_length=1)
    """Dotted path into the recipe -> distribution. `data.weights` takes a `mixture`, or a `simplex` of source names."""
    metric: str = "eval/loss"
    """Metric that trials report during training."""
    mode: Mode = "min"
    """Whether less or more is better."""
    goals: tuple[GoalSpec, ...] = ()
    """A weighted sum, or several goals at once, in place of `metric` and `mode`. Of several, results show the trials
    that no other one beats in all of them; the first decides early stopping and which trial is best."""
    constraints: tuple[ConstraintSpec, ...] = ()
    """What the best trial must keep."""
    num_trials: int = Field(default=4, ge=1)
    """Samples from the space (with a grid: repetitions of the whole grid). With a budget it has no effect."""
    patience: int | None = Field(default=None, ge=1)
    """End the search when so many trials, one after the other, were no better than the best before them."""
    expected_improvement: ExpectedImprovementSpec | None = None
    """End the search when the model of `searcher: mixture` expects next to nothing of another trial."""
    budget: str | None = None
    """What the whole search may spend: a time (`2h`), tokens that are learned (`5e6 tokens`) or money (`$20`). It
    decides how many trials there are, when they may be stopped and, unless `confirm` is stated, how many runs with
    fresh seeds; `scheduler: null` and `searcher: mixture` stop none."""
    price_per_hour: float | None = Field(default=None, gt=0)
    """What the whole cluster costs an hour, for a budget in money; default: `DIDACT_PRICE_PER_HOUR`."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at once; default, and never more: as many as the cluster's CPUs or GPUs hold."""
    fused: bool = False
    """Train the trials that run at once together on one base in one worker: each learns what it would learn alone, in
    less time and memory. For trials of plain LoRA on one base; `max_concurrent` says how many, 8 where it is left
    out."""
    scheduler: Scheduler | None = HalvingSpec(grace_steps=10)
    """Early stopping, by `rule: halving` or `rule: median`, or `rule: population`, which also changes settings on the
    way; null lets every trial run to its end. `searcher: mixture` compares trials of equal length and stops none."""
    searcher: Literal["random", "quasi_random", "optuna", "mixture"] = "random"
    """Who chooses: independent samples; a scrambled Sobol sequence; Optuna; or a model of the goal over mixtures and
    settings, which suits few trials best."""
    sampler: Literal["tpe", "gp", "cmaes", "nsga2"] = "tpe"
    """Of Optuna."""
    initial: int | None = Field(default=None, ge=2)
    """Trials of `searcher: mixture` before its model decides; default: twice the coordinates, at least 8, at most half
    of all."""
    proxy: ProxySpec | None = None
    """What ranks mixtures beforehand for `searcher: mixture`: sums of adapters of single sources."""
    warm_start: tuple[str, ...] = ()
    """Names of earlier sweeps, in the same folder of runs, that searched the same settings; the searcher learns from
    those of their finished trials that this space could have drawn."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search."""
    confirm: ConfirmSpec | None = None
    """Run the best trials again when the search has ended; the winner is then the best of these runs. May be added to
    a finished sweep."""
    register_best_as: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    """Registered model that gets the best trial's adapter as `candidate`."""

    @field_validator("budget", mode="before")
    @classmethod
    def _as_written(cls, budget: Any) -> Any:
        """A number alone is a budget without its unit, and told so."""
        return f"{budget:g}" if isinstance(budget, int | float) and not isinstance(budget, bool) else budget

    @field_validator("budget")
    @classmethod
    def _readable(cls, budget: str | None) -> str | None:
        if budget is not None:
            parse_budget(budget)
        return budget

    @property
    def all_goals(self) -> tuple[GoalSpec, ...]:
        """The goals, the one of `metric` and `mode` where there is one alone."""
        return self.goals or (GoalSpec(metric=self.metric, mode=self.mode),)

    @property
    def mixture(self) -> Simplex | Mixture | None:
        """The distribution of `data.weights`."""
        found = self.space.get("data.weights")
        return found if isinstance(found, Simplex | Mixture) else None

    @model_validator(mode="before")
    @classmethod
    def _mixtures_run_to_their_end(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("searcher") == "mixture":
            return {"scheduler": None, **values}
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        in_order(self.space)
        for path, distribution in self.space.items():
            if isinstance(distribution, Simplex | Mixture) != (path == "data.weights"):
                raise ValueError(f"space.{path}: simplex and mixture are for data.weights, which takes one of them")
            if isinstance(distribution, Grid) and self.searcher != "random":
                raise ValueError(f"space.{path}: grid needs searcher 'random'; with {self.searcher} use choice")
            if isinstance(distribution, Grid) and distribution.when:
                raise ValueError(f"space.{path}: a grid is always tried in full; remove when, or use choice")
            if isinstance(distribution, Grid) and self.patience is not None:
                raise ValueError(f"space.{path}: a grid is always tried in full; remove patience, or use choice")
        if all(isinstance(kind, Derived) for kind in self.space.values()):
            raise ValueError("space draws nothing: every setting follows another one")
        if self.goals and {"metric", "mode"} & self.model_fields_set:
            raise ValueError("goals take the place of metric and mode; remove these")
        for check in (
            *(_check_searcher, _check_cmaes, _check_stopping, _check_proxy),
            *(_check_population, _check_fused),
        ):
            check(self)
        return self


def _check_population(sweep: SweepSpec) -> None:
    if not isinstance(sweep.scheduler, PopulationSpec):
        return
    rule = "scheduler.rule 'population'"
    if sweep.searcher not in ("random", "quasi_random"):
        raise ValueError(
            f"{rule} begins with random trials; found searcher {sweep.searcher!r}, use random or quasi_random"
        )
    if any(isinstance(kind, Grid) for kind in sweep.space.values()):
        raise ValueError(f"{rule} begins with random trials; use choice in place of grid")
    if sweep.num_trials < 2:
        raise ValueError(f"{rule} compares trials; found num_trials {sweep.num_trials}, give at least 2")
    for field in ("budget", "patience"):
        if getattr(sweep, field) is not None:
            raise ValueError(f"{field} has no effect on a population, whose trials all run to the end; remove {field}")
    if sweep.confirm and sweep.confirm.steps:
        raise ValueError("confirm.steps would stretch schedules that a population found at its own length; remove it")


def _check_fused(sweep: SweepSpec) -> None:
    if not sweep.fused:
        return
    if isinstance(sweep.scheduler, PopulationSpec):
        raise ValueError("scheduler.rule 'population' trains each trial in pieces of its own; set fused to false")
    if sweep.budget is not None and parse_budget(sweep.budget).unit != "tokens":
        raise ValueError(
            f"fused trials share their time, by which budget {sweep.budget!r} counts; give a budget in tokens, or "
            "set fused to false"
        )


def _check_searcher(sweep: SweepSpec) -> None:
    if sweep.sampler != "tpe" and sweep.searcher != "optuna":
        raise ValueError(f"sampler {sweep.sampler!r} is one of Optuna's; set searcher: optuna")
    if sweep.sampler == "cmaes" and len(sweep.goals) > 1:
        raise ValueError("sampler 'cmaes' has one goal; with several use nsga2, tpe or gp")
    if sweep.searcher == "mixture" and sweep.scheduler is not None:
        raise ValueError("searcher 'mixture' compares trials of equal length; set scheduler to null")
    if sweep.initial is not None and sweep.searcher != "mixture":
        raise ValueError(f"initial is of searcher 'mixture'; found searcher {sweep.searcher!r}")
    if sweep.initial is not None and sweep.initial > sweep.num_trials:
        raise ValueError(f"initial is {sweep.initial}, above num_trials {sweep.num_trials}")
    if sweep.warm_start and sweep.searcher not in ("optuna", "mixture"):
        raise ValueError(f"warm_start needs a searcher that learns, optuna or mixture; found {sweep.searcher!r}")


def _check_cmaes(sweep: SweepSpec) -> None:
    for path, kind in sweep.space.items():
        if sweep.sampler == "cmaes" and (isinstance(kind, Choice) or getattr(kind, "when", None)):
            what = "when" if getattr(kind, "when", None) else "choice"
            raise ValueError(
                f"space.{path}: sampler 'cmaes' draws numbers that every trial has, and finds {what}; use randint or "
                "uniform with step or factor, or sampler tpe"
            )


def _check_stopping(sweep: SweepSpec) -> None:
    if sweep.budget is not None and isinstance(sweep.scheduler, HalvingSpec) and sweep.scheduler.grace_tokens:
        raise ValueError(
            "scheduler.grace_tokens has no effect: with a budget the steps of the rungs follow from it; remove one"
        )
    if sweep.expected_improvement is not None and sweep.searcher != "mixture":
        raise ValueError(
            f"expected_improvement is told by the model of searcher 'mixture'; found searcher {sweep.searcher!r}. Use "
            "patience, or that searcher"
        )
    if sweep.expected_improvement is not None and len(sweep.goals) > 1:
        raise ValueError(f"expected_improvement needs a single goal; found {len(sweep.goals)}. Use patience")


def _check_proxy(sweep: SweepSpec) -> None:
    if sweep.proxy is not None and sweep.searcher != "mixture":
        raise ValueError(f"proxy is of searcher 'mixture'; found searcher {sweep.searcher!r}")
    if sweep.proxy is not None and sweep.budget is not None:
        raise ValueError("proxy costs what a budget does not count; remove one of both")
    if sweep.proxy is not None and sweep.proxy.calibrate >= sweep.num_trials:
        raise ValueError(
            f"proxy.calibrate is {sweep.proxy.calibrate}, and num_trials {sweep.num_trials} leaves none to follow it"
        )
