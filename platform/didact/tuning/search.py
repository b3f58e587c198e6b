"""A sweep and its recipe, checked against each other before anything starts."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from didact.errors import SpecError
from didact.spec import FinetuneSpec, RegisterSpec, SweepSpec, read_recipe, set_dotted, validate
from didact.spec.fusing import fused_differences, why_not_fused
from didact.spec.search.space import Simplex
from didact.spec.search.sweep import COSTS
from didact.tuning.objective import Objective
from didact.tuning.searchers import Proposer, build_proposer
from didact.tuning.spaces import (
    Sizes,
    Space,
    Values,
    extremes,
    licensed,
    old_values,
    proportional,
    resolve_mixtures,
    unit_of,
)

_NOT_SEARCHED = ("name", "placement", "tracking", "evaluation", "register_as")
_STEP_METRICS = ("train/loss", "train/grad_norm", "train/tokens_per_second")
_CHECKED_DRAWS = 64
"""Draws that are checked against the recipe's schema, where the searcher decides later ones by what it sees."""


@dataclass(frozen=True)
class Search:
    """What to search, and the recipe that trials are derived from."""

    sweep: SweepSpec
    recipe: dict[str, Any]
    """The recipe's values with the sweep's overrides, as plain data, without sources that a filter leaves out."""
    origin: str
    """The search file, named in errors."""
    sizes: Sizes | None = None
    """Of the sources, once they are prepared."""

    def base(self) -> FinetuneSpec:
        """The recipe before anything is sampled."""
        spec: FinetuneSpec = validate(FinetuneSpec, self.recipe, self.origin)
        return spec

    def longest(self) -> FinetuneSpec:
        """The recipe with the most steps that a trial can have."""
        values = {
            path: pick(extremes(kind))
            for path, kind in self.space.drawn.items()
            for name, pick in (("steps", max), ("epochs", max), ("global_batch_size", min))
            if path == f"training.{name}"
        }
        return trial_spec(self.recipe, values, self.base().name, self.origin)

    @cached_property
    def space(self) -> Space:
        """What is drawn from; limits on passes and priors by size hold once `sizes` are known."""
        found = self.sweep.mixture
        if found is None:
            return Space(self.sweep.space)
        mixtures = resolve_mixtures(found.space, self.base().data, self.sizes, self._field)
        return Space(self.sweep.space, mixtures)

    @cached_property
    def objective(self) -> Objective:
        """Goals and constraints."""
        return Objective.of(self.sweep)

    def sized(self, sizes: Sizes) -> "Search":
        """The same with the sizes of prepared sources.

        Raises:
            SpecError: no mixture keeps the limits on passes, or the recipe's schema refuses a draw.
        """
        search = replace(self, sizes=sizes)
        check_draws(search)
        return search

    @property
    def _field(self) -> str:
        kind = "simplex" if isinstance(self.sweep.mixture, Simplex) else "mixture"
        return f"{self.origin}: space.data.weights.{kind}"


def load_search(sweep: SweepSpec, origin: Path, recipe: FinetuneSpec | None = None) -> Search:
    """Find the sweep's recipe and check every dotted path against it.

    Args:
        sweep: as read from `origin`.
        origin: the search file; the recipe is looked for beside it, then in the working directory.
        recipe: instead of the file that the sweep names.

    Raises:
        SpecError: no such recipe; a path or value that the recipe's schema refuses; a mixture that names unknown
            sources or ones that its licence filter leaves out, or whose limits no mixture keeps; a metric that trials
            would not report.
    """
    values = recipe.model_dump(mode="json") if recipe else read_recipe(sweep.recipe, origin)
    for path, value in sweep.overrides.items():
        set_dotted(values, path, value, f"{origin}: overrides")
    search = Search(sweep, values, str(origin))
    base = validate(FinetuneSpec, values, f"{origin}: recipe {sweep.recipe} with its overrides")
    _check_space(search, base)
    search = _without_refused(search, base)
    check_draws(search)
    _check_metrics(sweep, search.base(), str(origin))
    best_spec(search, trial_spec(search.recipe, {}, trial_name(sweep, "00000_00000"), str(origin)))
    return search


def check_draws(search: Search) -> None:
    """Check draws against the recipe's schema: all extreme values, and every draw that is known beforehand.

    Raises:
        SpecError: names the draw and the field.
    """
    check_fused(search, search.base(), {})
    space, sweep, name = search.space, search.sweep, search.base().name
    where = f"{search.origin}: space"
    for values in space.corners():
        check_fused(search, trial_spec(search.recipe, values, name, where), values)
    known_beforehand = sweep.searcher in ("random", "quasi_random")
    proposer: Proposer = build_proposer(search.sweep if known_beforehand else _random(sweep), space, search.objective)
    count = num_trials(search) if known_beforehand else _CHECKED_DRAWS
    for index in range(min(count, 8 * _CHECKED_DRAWS)):
        values = proposer.propose(index, ()).values
        check_fused(search, trial_spec(search.recipe, values, name, where), values)


def check_fused(search: Search, trial: FinetuneSpec, values: Mapping[str, Any]) -> None:
    """Nothing, where a trial can be trained with the others, or the sweep does not ask for it.

    Args:
        search: of the sweep.
        trial: its recipe.
        values: what was drawn for it.

    Raises:
        SpecError: names each field in the way, and whether the space draws it or the recipe sets it.
    """
    if not search.sweep.fused:
        return
    reasons = (*why_not_fused(trial), *fused_differences(search.base(), trial))
    if reasons:
        drawn = [path for path in values if any(each.startswith(path.split(".")[0]) for each in reasons)]
        whose = f"a trial with {', '.join(f'{path}={values[path]!r}' for path in drawn)}" if drawn else "the recipe"
        lines = "\n".join(f"  - {each}" for each in reasons)
        raise SpecError(f"{search.origin}: fused: {whose} cannot be trained with others on one base:\n{lines}")


def num_trials(search: Search) -> int:
    """Trials of the whole search."""
    return search.sweep.num_trials * len(search.space.grid_points())


def named_mixtures(search: Search, *, within_limits: bool = True) -> list[tuple[str, Values]]:
    """The uniform and, once sizes are known, the proportional mixture, with the values that they put into a recipe.

    Args:
        search: draws the mixture; without one there are none.
        within_limits: only those that the search's limits allow.
    """
    mixtures, found = search.space.mixtures, search.sweep.mixture
    if mixtures is None or found is None:
        return []
    named = [("uniform", np.full(len(mixtures.names), 1 / len(mixtures.names)))]
    if search.sizes is not None:
        data = search.base().data
        named.append(("proportional", proportional(data, mixtures.names, search.sizes, unit_of(found.space, data))))
    allowed = [(name, each) for name, each in named if not within_limits or mixtures.at_prior(each) is not None]
    return [(name, mixtures.values(mixtures.throughout(each))) for name, each in allowed]


def trial_values(search: Search, sample: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a trial's sample puts into the recipe, by dotted path; also of sweeps of earlier versions."""
    draw = sample.get("draw")
    return dict(draw["values"]) if isinstance(draw, dict) else old_values(search.sweep.space, sample)


def trial_name(sweep: SweepSpec, trial_id: str) -> str:
    """Name of a trial's run."""
    return f"{sweep.name}-{trial_id}"


def trial_spec(
    recipe: dict[str, Any], values: dict[str, Any], name: str, origin: str, tracking_uri: str | None = None
) -> FinetuneSpec:
    """The recipe of one trial: it trains and reports, and neither evaluates nor registers afterwards.

    Args:
        recipe: plain values.
        values: dotted path -> value, from `trial_values`.
        name: of the trial's run.
        origin: the search file, named in errors.
        tracking_uri: MLflow of the whole sweep, which the trial's own folder would not lead to.

    Raises:
        SpecError: the recipe's schema refuses the values; names the dotted paths.
    """
    derived = copy.deepcopy(recipe)
    listed = ", ".join(f"{path}={value!r}" for path, value in values.items())
    origin = f"{origin}: trial with {listed}" if listed else origin
    if "adapter.method" in values:  # another method takes the place of the recipe's, with options of its own
        set_dotted(derived, "adapter", {"method": values["adapter.method"]}, origin)
    for path, value in values.items():
        set_dotted(derived, path, value, origin)
    derived |= {"name": name, "evaluation": None, "register_as": None}
    if tracking_uri:
        derived["tracking"] = {**(derived.get("tracking") or {}), "uri": tracking_uri}
    spec: FinetuneSpec = validate(FinetuneSpec, derived, origin)
    return spec


def best_spec(search: Search, trial: FinetuneSpec) -> FinetuneSpec:
    """The best trial's recipe with the evaluation given back, to be registered under the sweep's name for it.

    Raises:
        SpecError: the recipe trains something that cannot be registered.
    """
    base, name = search.base(), search.sweep.register_best_as
    values = trial.model_dump(mode="json")
    values["evaluation"] = base.evaluation.model_dump(mode="json") if base.evaluation else None
    if name:
        asked = base.register_as or RegisterSpec(name=name)
        values["register_as"] = {**asked.model_dump(mode="json"), "name": name, "alias": "candidate"}
    spec: FinetuneSpec = validate(FinetuneSpec, values, f"{search.origin}: register_best_as")
    return spec


def _random(sweep: SweepSpec) -> SweepSpec:
    changed = {"searcher": "random", "sampler": "tpe", "initial": None, "warm_start": ()}
    return sweep.model_copy(update=changed)


def _check_space(search: Search, base: FinetuneSpec) -> None:
    for path in search.sweep.space:
        if path.split(".")[0] in _NOT_SEARCHED:
            raise SpecError(
                f"{search.origin}: space.{path}: trials all share the recipe's {path.split('.')[0]}; set it under "
                "overrides"
            )
    for path in ("training.seed", "data.seed"):
        if search.sweep.confirm and path in search.sweep.space:
            raise SpecError(f"{search.origin}: space.{path}: confirm gives runs seeds of its own; remove one of both")
    mixture = search.sweep.mixture
    if mixture is None:
        return
    if base.data.strategy != "explicit":
        raise SpecError(
            f"{search.origin}: space.data.weights has no effect, since the recipe's data.strategy is "
            f"{base.data.strategy!r}; set data.strategy: explicit under overrides"
        )
    if base.data.curriculum and mixture.space.curriculum is None:
        raise SpecError(
            f"{search.origin}: space.data.weights has no effect, since the recipe has a data.curriculum; set it to [] "
            "under overrides, or draw a mixture.curriculum"
        )


def _without_refused(search: Search, base: FinetuneSpec) -> Search:
    """Sources that the licence filter leaves out are not even read."""
    mixture = search.sweep.mixture
    if mixture is None:
        return search
    names = licensed(mixture.space, base.data, search._field)
    if mixture.space.licence is None:
        return search
    asked = mixture.space.sources or tuple(source.name for source in base.data.sources)
    drop = set(asked) - set(names)
    recipe = copy.deepcopy(search.recipe)
    recipe["data"]["sources"] = [each for each in recipe["data"]["sources"] if each["name"] not in drop]
    return replace(search, recipe=recipe)


def _check_metrics(sweep: SweepSpec, base: FinetuneSpec, origin: str) -> None:
    for number, goal in enumerate(sweep.all_goals):
        field = f"goals.{number}.metric" if sweep.goals else "metric"
        if number == 0 and set(goal.weights) & set(COSTS):
            raise SpecError(f"{origin}: {field}: found {goal.name!r}; what trials cost can be a further goal only")
        for metric in goal.weights:
            _check_metric(metric, field, sweep, base, origin)
    for number, constraint in enumerate(sweep.constraints):
        _check_metric(constraint.metric, f"constraints.{number}.metric", sweep, base, origin)


def _check_metric(metric: str, field: str, sweep: SweepSpec, base: FinetuneSpec, origin: str) -> None:
    held_out = [source.name for source in base.data.sources if source.held_out_rows]
    evaluated = ["eval/loss", *(f"eval/{name}/loss" for name in held_out)]
    if metric in (*_STEP_METRICS, *COSTS):
        return
    if not metric.startswith("eval/"):
        raise SpecError(f"{origin}: {field}: found {metric!r}; expected one of {[*evaluated, *_STEP_METRICS, *COSTS]}")
    if not held_out:
        raise SpecError(
            f"{origin}: {field} {metric!r} needs held-out rows, and no source of {sweep.recipe} sets any aside; "
            f"set data.sources.{base.data.sources[0].name}.held_out_rows under overrides"
        )
    if base.training.evaluate_every is None:
        raise SpecError(
            f"{origin}: {field} {metric!r} is not measured during training, since {sweep.recipe} sets no "
            "training.evaluate_every; set it under overrides"
        )
    if metric not in evaluated:
        raise SpecError(
            f"{origin}: {field}: found {metric!r}; expected what trials report during training: {evaluated}"
        )
