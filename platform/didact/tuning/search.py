"""A sweep and its recipe, checked against each other before anything starts."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.errors import SpecError
from didact.spec import FinetuneSpec, RegisterSpec, SweepSpec, read_mapping, set_dotted, validate
from didact.spec.sweep import Simplex
from didact.tuning.space import extreme_values

_NOT_SEARCHED = ("name", "placement", "tracking", "evaluation", "register_as")
_STEP_METRICS = ("train/loss", "train/grad_norm", "train/tokens_per_second")


@dataclass(frozen=True, slots=True)
class Search:
    """What to search, and the recipe that trials are derived from."""

    sweep: SweepSpec
    recipe: dict[str, Any]
    """The recipe's values with the sweep's overrides, as plain data."""
    origin: str
    """The search file, named in errors."""

    def base(self) -> FinetuneSpec:
        """The recipe before anything is sampled."""
        spec: FinetuneSpec = validate(FinetuneSpec, self.recipe, self.origin)
        return spec

    def longest(self) -> FinetuneSpec:
        """The recipe with the most steps that a trial can have."""
        values = {
            path: pick(extreme_values(distribution))
            for path, distribution in self.sweep.space.items()
            for name, pick in (("steps", max), ("epochs", max), ("global_batch_size", min))
            if path == f"training.{name}"
        }
        return trial_spec(self.recipe, values, self.base().name, self.origin)


def load_search(sweep: SweepSpec, origin: Path, recipe: FinetuneSpec | None = None) -> Search:
    """Find the sweep's recipe and check every dotted path against it.

    Args:
        sweep: as read from `origin`.
        origin: the search file; the recipe is looked for beside it, then in the working directory.
        recipe: instead of the file that the sweep names.

    Raises:
        SpecError: no such recipe; a path or value that the recipe's schema refuses; a simplex over unknown sources; a
            metric that trials would not report.
    """
    values = recipe.model_dump(mode="json") if recipe else read_mapping(_recipe_file(sweep, origin))
    for path, value in sweep.overrides.items():
        set_dotted(values, path, value, f"{origin}: overrides")
    search = Search(sweep, values, str(origin))
    base = validate(FinetuneSpec, values, f"{origin}: recipe {sweep.recipe} with its overrides")
    _check_space(search, base)
    _check_metric(sweep, base, str(origin))
    best_spec(search, trial_spec(values, {}, trial_name(sweep, "00000_00000"), str(origin)))
    return search


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


def _recipe_file(sweep: SweepSpec, origin: Path) -> Path:
    places = (origin.parent / sweep.recipe, Path(sweep.recipe))
    for place in places:
        if place.is_file():
            return place
    looked = " nor ".join(dict.fromkeys(str(place) for place in places))
    raise SpecError(f"{origin}: recipe: found {sweep.recipe!r}, but there is no {looked}")


def _check_space(search: Search, base: FinetuneSpec) -> None:
    for path, distribution in search.sweep.space.items():
        where = f"{search.origin}: space.{path}"
        if path.split(".")[0] in _NOT_SEARCHED:
            raise SpecError(f"{where}: trials all share the recipe's {path.split('.')[0]}; set it under overrides")
        if isinstance(distribution, Simplex):
            names = [source.name for source in base.data.sources]
            unknown = [name for name in distribution.simplex if name not in names]
            if unknown:
                raise SpecError(f"{where}: the recipe has no source {unknown[0]!r}; expected some of {names}")
        for value in extreme_values(distribution):
            trial_spec(search.recipe, {path: value}, base.name, f"{search.origin}: space")


def _check_metric(sweep: SweepSpec, base: FinetuneSpec, origin: str) -> None:
    held_out = [source.name for source in base.data.sources if source.held_out_rows]
    evaluated = ["eval/loss", *(f"eval/{name}/loss" for name in held_out)]
    if sweep.metric in _STEP_METRICS:
        return
    if not sweep.metric.startswith("eval/"):
        raise SpecError(f"{origin}: metric: found {sweep.metric!r}; expected one of {[*evaluated, *_STEP_METRICS]}")
    if not held_out:
        raise SpecError(
            f"{origin}: metric {sweep.metric!r} needs held-out rows, and no source of {sweep.recipe} sets any aside; "
            f"set data.sources.{base.data.sources[0].name}.held_out_rows under overrides"
        )
    if base.training.evaluate_every is None:
        raise SpecError(
            f"{origin}: metric {sweep.metric!r} is not measured during training, since {sweep.recipe} sets no "
            "training.evaluate_every; set it under overrides"
        )
    if sweep.metric not in evaluated:
        raise SpecError(
            f"{origin}: metric: found {sweep.metric!r}; expected what trials report during training: {evaluated}"
        )
