"""What a population changes on the way, written as a recipe."""

import math
from collections.abc import Sequence
from typing import Any

from didact.errors import SpecError
from didact.spec.search.schedulers import PopulationSpec
from didact.spec.search.space import Derived
from didact.tuning.search import Search, trial_spec
from didact.tuning.spaces import Space, Values
from didact.tuning.spaces.mixtures import weight_path

CHANGEABLE = {"training.learning_rate": "learning_rate", "adapter.dropout": "dropout"}
"""Settings that a run can change on the way -> their names in `training.changes`. Shares of a mixture as well."""
_FIXED = ("training.steps", "training.epochs", "training.global_batch_size")
"""What decides at which of a run's samples a step lies."""


def boundaries(spec: PopulationSpec, num_steps: int) -> tuple[int, ...]:
    """Steps at which trials pause, the last one of all included."""
    return (*range(spec.interval_steps, num_steps, spec.interval_steps), num_steps)


def changeable(space: Space) -> tuple[str, ...]:
    """Settings of a space that can change on the way, shares left out."""
    return tuple(path for path in space.drawn if path in CHANGEABLE)


def scheduled(search: Search, phases: Sequence[Values], interval: int, num_steps: int) -> Values:
    """What a trial puts into the recipe: its first values, and those of each interval after it.

    Every interval is stated, also where nothing changes: so what a recipe says of the steps up to a boundary is the
    same whatever comes later, and copies go on exactly where they were taken.

    Args:
        search: of the population.
        phases: the values of each interval.
        interval: steps of each; the last one may be shorter.
        num_steps: of the whole trial.
    """
    changes: list[dict[str, Any]] = []
    for number, phase in enumerate(phases[1:], start=1):
        found = {name: phase[path] for path, name in CHANGEABLE.items() if path in changeable(search.space)}
        changes += [{"after": number * interval, **found}] if found else []
    base, values = search.base(), dict(phases[0])
    if base.training.steps != num_steps:  # the recipe states epochs
        values |= {"training.steps": num_steps, "training.epochs": None}
    if changes:
        values["training.changes"] = changes
    if search.space.mixtures is not None:
        sources = base.data.sources
        ends = [min(1.0, (number + 1) * interval / num_steps) for number in range(len(phases))]
        values["data.curriculum"] = [
            {
                "until": end,
                "weights": {each.name: phase.get(weight_path(each.name), each.weight) for each in sources},
            }
            for end, phase in zip(ends, phases, strict=True)
        ]
        if base.data.interpolate != "step":
            values["data.interpolate"] = "step"
    return values


def num_phases(interval: int, num_steps: int) -> int:
    """Intervals of a trial."""
    return math.ceil(num_steps / interval)


def check_population(search: Search, spec: PopulationSpec, num_steps: int) -> None:
    """Refuse a search whose trials cannot be compared, copied or changed; before Ray starts.

    Args:
        search: with the sizes of its sources.
        spec: the rule.
        num_steps: of a trial.

    Raises:
        SpecError: with file and field.
    """
    base, space, where = search.base(), search.space, search.origin
    able = changeable(space)
    if not able and space.mixtures is None:
        known = ", ".join([*CHANGEABLE, "data.weights"])
        raise SpecError(f"{where}: scheduler.rule 'population' changes {known}; space draws none of them")
    for path, kind in search.sweep.space.items():
        if path in _FIXED:
            raise SpecError(
                f"{where}: space.{path}: trials of a population have the same length; set it under overrides"
            )
        if isinstance(kind, Derived) and kind.of in able:
            raise SpecError(f"{where}: space.{path} follows {kind.of}, which changes on the way; remove one of both")
        if path in able and getattr(kind, "when", None):
            raise SpecError(f"{where}: space.{path}.when: a setting that changes on the way is one of every trial")
    if space.mixtures is not None and space.mixtures.until is not None:
        raise SpecError(f"{where}: space.data.weights.mixture.curriculum: a population finds when mixtures change")
    if space.mixtures is not None and base.data.online_mixing:
        raise SpecError(
            f"{where}: the recipe's data.online_mixing changes mixtures as a population does; set it to null under "
            "overrides"
        )
    if base.training.changes:
        raise SpecError(f"{where}: the recipe's training.changes would be replaced; set them to [] under overrides")
    every = base.training.evaluate_every or 1
    evaluated = any(metric.startswith("eval/") for metric in search.objective.goals[0].weights)
    if evaluated and spec.interval_steps % every:
        raise SpecError(
            f"{where}: scheduler.interval_steps: found {spec.interval_steps}, but {search.objective.name} is measured "
            f"every {every} steps (training.evaluate_every); give a multiple of that"
        )
    if spec.interval_steps >= num_steps:
        raise SpecError(
            f"{where}: scheduler.interval_steps: found {spec.interval_steps}, but trials have {num_steps} steps, so "
            "that none would ever be copied; give fewer"
        )
    first = next(iter(space.draws(_seeded(search.sweep.seed), 1)))
    phases = [first] * num_phases(spec.interval_steps, num_steps)
    trial_spec(search.recipe, scheduled(search, phases, spec.interval_steps, num_steps), base.name, f"{where}: space")


def _seeded(seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed)
