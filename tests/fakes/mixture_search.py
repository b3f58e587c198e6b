"""Searches over mixtures of sources whose best shares are known."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from didact.spec import DataSpec, FinetuneSpec, SweepSpec, validate
from didact.tuning.objective import Objective
from didact.tuning.searchers import MixtureProposer, Seen, build_proposer
from didact.tuning.spaces import Space, resolve_mixtures

BEST = np.array([0.6, 0.25, 0.1, 0.05])
"""Four sources share prompts and each always answers its own token; the target answers with these shares."""
Measure = Callable[[np.ndarray, dict[str, Any]], dict[str, float]]


def regret(shares: np.ndarray) -> float:
    return float((BEST * np.log(BEST / shares)).sum())


def search(count: int = 4, trials: int = 24, /, **changes: Any) -> tuple[SweepSpec, Space, Objective]:
    names = [f"s{number}" for number in range(count)]
    space = changes.pop("space", {})
    mixture = {"floor": 0.02, **changes.pop("mixture", {})}
    values = {"name": "s", "recipe": "r.yaml", "searcher": "mixture", "num_trials": trials, **changes}
    sweep = validate(SweepSpec, {**values, "space": {"data.weights": {"mixture": mixture}, **space}}, "s.yaml")
    sources = [{"name": name, "path": name} for name in names]
    recipe = {"name": "r", "data": {"sources": sources}, "training": {"steps": 3}}
    data: DataSpec = validate(FinetuneSpec, recipe, "r.yaml").data
    return sweep, Space(sweep.space, resolve_mixtures(sweep.mixture.space, data, None, "s.yaml")), Objective.of(sweep)


def proposer_of(sweep: SweepSpec, space: Space, objective: Objective) -> MixtureProposer:
    assert space.mixtures is not None
    uniform = space.mixtures.at_prior()
    assert uniform is not None
    built = build_proposer(sweep, space, objective, starts=[("uniform", space.mixtures.values(uniform))])
    assert isinstance(built, MixtureProposer)
    return built


def tried(
    sweep: SweepSpec,
    space: Space,
    objective: Objective,
    measure: Measure,
    noise: float,
    seed: int = 0,
    proposer: Any = None,
) -> tuple[list[Seen], np.ndarray]:
    """All trials one after the other, and their mixtures."""
    assert space.mixtures is not None
    proposer = proposer or proposer_of(sweep, space, objective)
    rng, seen, mixtures = np.random.default_rng([77, seed]), list[Seen](), []
    for index in range(sweep.num_trials):
        draw = proposer.propose(index, seen)
        shares = space.mixtures.point(draw.values)
        metrics = {name: value + noise * rng.normal() for name, value in measure(shares, draw.values).items()}
        broken = objective.violations(metrics)
        seen.append(Seen(draw, "ended", objective.losses(metrics), broken, metrics))
        mixtures.append(shares)
    return seen, np.array(mixtures)


def found(seen: Sequence[Seen]) -> int:
    return int(np.argmin([(each.losses or (math.inf,))[0] for each in seen]))
