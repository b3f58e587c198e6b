"""Who copies whom, and what changes: Ray Tune's PopulationBasedTraining, asked once for each interval.

Ray would run the trials as well. Then decisions would depend on Python's global generator and be lost by a kill, no
searcher could draw the first trials, and copies would go on by checkpoints of Tune's own. So it is shown the trials of
one interval, all paused, and what it decides is written down.
"""

import contextlib
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, pbt
from typing_extensions import override

from didact.spec.search.schedulers import PopulationSpec
from didact.tuning.population.schedule import changeable
from didact.tuning.spaces import Space, Values
from didact.tuning.spaces.mixtures import Mixtures
from didact.tuning.spaces.polytope import Vector
from didact.tuning.spaces.settings import extremes, from_unit, levels

_GOAL, _TIME = "goal", "step"


@dataclass(frozen=True, slots=True)
class Move:
    """A trial that ends, and the copy that goes on in its place."""

    loser: str
    """Id of the trial that ends."""
    donor: str
    """Id of the trial that is copied."""
    values: Values
    """What the copy goes on with."""


def decide(
    spec: PopulationSpec,
    space: Space,
    mode: Literal["min", "max"],
    scores: Mapping[str, float],
    now: Mapping[str, Values],
    seed: int,
    step: int,
) -> list[Move]:
    """What follows from one comparison; the same whenever and wherever it is asked.

    Args:
        spec: the rule.
        space: bounds and levels of what changes.
        mode: whether less or more of the goal is better.
        scores: trial -> its goal at this step; NaN counts as the worst.
        now: trial -> the values that it went by up to here.
        seed: of the search.
        step: of the comparison.
    """
    worst = math.inf if mode == "min" else -math.inf
    source = random.Random(f"{seed} {step}")
    members = [_Paused(name, dict(now[name])) for name in sorted(scores)]
    controller = SimpleNamespace(search_alg=None, get_trials=lambda: members, get_live_trials=lambda: members)
    mutations = {path: _mutation(space, path, source) for path in changeable(space)}
    asked = _Asked(
        time_attr=_TIME,
        metric=_GOAL,
        mode=mode,
        perturbation_interval=step,
        hyperparam_mutations=mutations,
        custom_explore_fn=lambda values: _within(space, spec, values, source),
        quantile_fraction=spec.quantile,
        resample_probability=spec.resample_probability,
        perturbation_factors=spec.factors,
        log_config=False,
        synch=True,
    )
    with _drawing_from(source):
        for member in members:
            asked.on_trial_add(controller, member)
        for member in members:
            score = scores[member.trial_id]
            asked.on_trial_result(controller, member, {_TIME: step, _GOAL: worst if math.isnan(score) else score})
    return asked.moves


class _Asked(PopulationBasedTraining):
    """Ray's rule, which says what it would do in place of doing it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.moves: list[Move] = []

    @override
    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        values, _ = self._get_new_config(trial, trial_to_clone)
        self.moves.append(Move(trial.trial_id, trial_to_clone.trial_id, values))


class _Paused:
    """A trial as Ray's rule looks at it: it waits, and has a checkpoint."""

    status, checkpoint, experiment_tag = Trial.PAUSED, "its newest", ""
    temporary_state = SimpleNamespace(saving_to=None)
    run_metadata = SimpleNamespace(
        checkpoint_manager=SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
    )

    def __init__(self, trial_id: str, config: Values) -> None:
        self.trial_id, self.config = trial_id, config

    def is_finished(self) -> bool:
        """It has steps left."""
        return False


@contextlib.contextmanager
def _drawing_from(source: random.Random) -> Iterator[None]:
    """Within it Ray's rule draws from `source`, not from the generator that everything in this process shares."""
    shared, pbt.random = pbt.random, source
    try:
        yield
    finally:
        pbt.random = shared


def _mutation(space: Space, path: str, source: random.Random) -> Any:
    """As Ray has it: levels, of which a neighbour is taken, or what draws a number anew."""
    kind = space.drawn[path]
    found = levels(kind)
    return list(found) if found is not None else lambda: from_unit(kind, source.random())


def _within(space: Space, spec: PopulationSpec, values: Values, source: random.Random) -> Values:
    """The values with numbers kept within their bounds, and with another mixture."""
    for path in changeable(space):
        if levels(space.drawn[path]) is None:
            low, high = extremes(space.drawn[path])
            values[path] = min(high, max(low, values[path]))
    if space.mixtures is None:
        return values
    point = space.mixtures.point(values)
    if source.random() < spec.resample_probability:
        moved = space.mixtures.draw(np.random.default_rng(source.getrandbits(64)))[0]
    else:
        moved = _moved(space.mixtures, point, np.array([source.choice(spec.factors) for _ in point]))
    return {**values, **space.mixtures.values(moved)}


def _moved(mixtures: Mixtures, point: Vector, factors: Vector) -> Vector:
    """Each share times its factor, and all of them added up to one; only as far as the limits allow."""
    scaled = point * factors
    aim = scaled / scaled.sum()
    limits = mixtures.restricted([index for index in mixtures.optional if point[index] == 0]).limits
    for part in (1.0, 0.5, 0.25, 0.125):
        moved: Vector = point + part * (aim - point)
        if bool(limits.holds(moved)):
            return moved
    return point
