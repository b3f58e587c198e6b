"""Distributions of a sweep -> samplers of Ray Tune or Optuna -> values at dotted paths of a recipe.

A sample is a flat mapping: dotted path -> value. A simplex over K sources is sampled as K independent uniform numbers
and mapped to weights afterwards, so that every searcher can draw it.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import tune
from ray.tune.search.variant_generator import generate_variants

from didact.spec.sweep import Choice, Distribution, Grid, LogUniform, RandInt, Simplex, Uniform

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

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


def optuna_space(space: Mapping[str, Distribution]) -> "dict[str, BaseDistribution]":
    """Optuna's distributions of the same samples as `param_space`; a spec holds no grid with it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    domains: dict[str, BaseDistribution] = {}
    for path, distribution in space.items():
        match distribution:
            case Choice(choice=values):
                domains[path] = CategoricalDistribution(list(values))
            case Uniform(uniform=(low, high)):
                domains[path] = FloatDistribution(low, high)
            case LogUniform(loguniform=(low, high)):
                domains[path] = FloatDistribution(low, high, log=True)
            case RandInt(randint=(low, high)):
                domains[path] = IntDistribution(low, high)
            case Simplex(simplex=names):
                domains.update({f"{path}.{name}": FloatDistribution(*_OPEN) for name in names})
    return domains


def draws_after(space: Mapping[str, Distribution], seed: int, earlier: int) -> np.random.Generator:
    """The source of a random search's draws once it has drawn `earlier` samples, so that more of them go on after it.

    A search with `num_trials: 4` that is given two more so tries what one with `num_trials: 6` would have tried.
    """
    draws = np.random.default_rng(seed)
    for _ in range(earlier):
        for _sample in generate_variants({"config": param_space(space)}, random_state=draws):
            pass
    return draws


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
