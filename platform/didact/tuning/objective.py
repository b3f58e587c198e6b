"""What makes one trial better than another: goals, what it must keep, and what it cost."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from didact.spec import SweepSpec
from didact.spec.search.sweep import COSTS, ConstraintSpec, GoalSpec
from didact.tracking import StepRecord

Metrics = Mapping[str, float]
_PAUSE = 2.0
"""Times the median step that a step may take; what is longer holds an evaluation, a checkpoint or a restart."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The goals and constraints of a search."""

    goals: tuple[GoalSpec, ...]
    constraints: tuple[ConstraintSpec, ...] = ()

    @classmethod
    def of(cls, sweep: SweepSpec) -> "Objective":
        """Those that a search file states."""
        return cls(sweep.all_goals, sweep.constraints)

    @property
    def name(self) -> str:
        """Of the first goal, which early stopping and the choice of the best go by."""
        return self.goals[0].name

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that goals and constraints read, each once."""
        asked = [
            *(metric for goal in self.goals for metric in goal.weights),
            *(each.metric for each in self.constraints),
        ]
        return tuple(dict.fromkeys(asked))

    def value(self, metrics: Metrics, goal: int = 0) -> float | None:
        """A goal's value; None where a metric is missing."""
        weights = self.goals[goal].weights
        if any(metric not in metrics for metric in weights):
            return None
        return sum(weight * metrics[metric] for metric, weight in weights.items())

    def losses(self, metrics: Metrics) -> tuple[float, ...] | None:
        """All goals, each so that less is better; None where one has no value."""
        found = [self.value(metrics, index) for index in range(len(self.goals))]
        if any(value is None for value in found):
            return None
        return tuple(
            value if goal.mode == "min" else -value
            for value, goal in zip(found, self.goals, strict=True)
            if value is not None
        )

    def violations(self, metrics: Metrics) -> tuple[float, ...]:
        """By how much each constraint is broken, at most 0 where it is kept; infinite where its metric is missing."""
        return tuple(_violation(each, metrics) for each in self.constraints)

    def front(self, losses: Sequence[tuple[float, ...] | None]) -> tuple[int, ...]:
        """Indices of those that no other one beats: as good in all goals and better in one (Pareto)."""
        known = {index: each for index, each in enumerate(losses) if each is not None and all(map(math.isfinite, each))}
        return tuple(
            index
            for index, one in known.items()
            if not any(
                other != one and all(a <= b for a, b in zip(other, one, strict=True)) for other in known.values()
            )
        )


def costs(records: Sequence[StepRecord]) -> dict[str, float]:
    """What a run has cost so far, by the names of `COSTS`: tokens as far as steps recorded them.

    Seconds are those of the steps; a pause between two steps counts as a step of median length.
    """
    steps = list(records)
    if not steps:
        return {}
    gaps = sorted((later.time_ms - before.time_ms) / 1000 for before, later in pairwise(steps))
    median = gaps[len(gaps) // 2] if gaps else 0.0
    seconds = sum(min(gap, _PAUSE * median) for gap in gaps) + median
    tokens = sum(record.metrics.get("train/tokens", 0.0) for record in steps)
    return dict(zip(COSTS, (tokens, seconds, float(steps[-1].step)), strict=True))


def latest(records: Iterable[StepRecord]) -> dict[str, float]:
    """Every metric at its newest measurement."""
    found: dict[str, float] = {}
    for record in records:
        found |= record.metrics
    return found


def _violation(constraint: ConstraintSpec, metrics: Metrics) -> float:
    if constraint.metric not in metrics:
        return math.inf
    value = metrics[constraint.metric]
    return value - constraint.at_most if constraint.at_most is not None else (constraint.at_least or 0.0) - value
