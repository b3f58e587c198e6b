"""Distributions of a sweep -> samplers of Ray Tune or Optuna -> values at dotted paths of a recipe.

A sample is a flat mapping: dotted path -> value. A simplex over K sources is sampled as K independent uniform numbers
and mapped to weights afterwards, so that every searcher can draw it.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ray import tune

from didact.spec.sweep import Choice, Distribution, Grid, LogUniform, RandInt, Simplex, Uniform

if TYPE_CHECKING:
    from optuna import Trial

_OPEN = (1e-6, 1 - 1e-6)  # away from 0 and 1, where a weight would be infinite or nothing


def param_space(space: Mapping[str, Distribution]) -> dict[str, Any]:
    """Ray Tune's domains, for independent samples and grids."""
    domains: dict[str, Any] = {}
    for path, distribution in space.items():
        match distribution:
            case Choice(choice=values):
                domains[path] = tune.choice(list(values))
            case Uniform(uniform=(low, high)):
                domains[path] = tune.uniform(low, high)
            case LogUniform(loguniform=(low, high)):
                domains[path] = tune.loguniform(low, high)
            case RandInt(randint=(low, high)):
                domains[path] = tune.randint(low, high + 1)
            case Grid(grid=values):
                domains[path] = tune.grid_search(list(values))
            case Simplex(simplex=names):
                domains.update({f"{path}.{name}": tune.uniform(*_OPEN) for name in names})
    return domains


def optuna_space(space: Mapping[str, Distribution]) -> Callable[["Trial"], None]:
    """Optuna's define-by-run function over the same samples as `param_space`; a spec holds no grid with it.

    It can be pickled, since Tune saves it with the searcher's state.
    """
    return functools.partial(_suggest, dict(space))


def _suggest(space: dict[str, Distribution], trial: "Trial") -> None:
    for path, distribution in space.items():
        match distribution:
            case Choice(choice=values):
                trial.suggest_categorical(path, list(values))
            case Uniform(uniform=(low, high)):
                trial.suggest_float(path, low, high)
            case LogUniform(loguniform=(low, high)):
                trial.suggest_float(path, low, high, log=True)
            case RandInt(randint=(low, high)):
                trial.suggest_int(path, low, high)
            case Simplex(simplex=names):
                for name in names:
                    trial.suggest_float(f"{path}.{name}", *_OPEN)


def trial_values(space: Mapping[str, Distribution], sample: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a sample puts into the recipe, by dotted path.

    A simplex becomes `data.sources.NAME.weight` with w_k = -log(u_k) / sum_j -log(u_j): normalised exponentials, which
    are uniform over all mixtures (Dirichlet(1); Devroye, Non-Uniform Random Variate Generation, 1986, chapter XI.4).
    """
    values: dict[str, Any] = {}
    for path, distribution in space.items():
        if isinstance(distribution, Simplex):
            parts = {name: -math.log(sample[f"{path}.{name}"]) for name in distribution.simplex}
            total = sum(parts.values())
            values.update({f"data.sources.{name}.weight": part / total for name, part in parts.items()})
        else:
            values[path] = sample[path]
    return values


def extreme_values(distribution: Distribution) -> tuple[Any, ...]:
    """Values that stand for all that a distribution can draw: each one listed, or both bounds; none for a simplex."""
    match distribution:
        case Choice(choice=values) | Grid(grid=values):
            return values
        case Uniform(uniform=bounds) | LogUniform(loguniform=bounds) | RandInt(randint=bounds):
            return bounds
        case _:
            return ()
