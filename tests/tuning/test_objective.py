"""Goals, constraints and costs."""

import math

import pytest

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.tracking import StepRecord
from didact.tuning.objective import Objective, costs, latest


def objective(**changes: object) -> Objective:
    values = {"name": "s", "recipe": "r.yaml", "space": {"adapter.r": {"choice": [4]}}, **changes}
    return Objective.of(validate(SweepSpec, values, "s.yaml"))


def test_a_sum_has_a_value_once_all_its_metrics_are_known() -> None:
    found = objective(goals=[{"sum": {"eval/a/loss": 0.5, "eval/b/loss": 2}, "mode": "max"}])
    assert found.name == "0.5 eval/a/loss + 2 eval/b/loss"
    assert found.value({"eval/a/loss": 4.0}) is None
    assert found.value({"eval/a/loss": 4.0, "eval/b/loss": 1.0}) == 4.0
    assert found.losses({"eval/a/loss": 4.0, "eval/b/loss": 1.0}) == (-4.0,)


def test_the_front_holds_what_nothing_else_beats() -> None:
    found = objective(goals=[{"metric": "eval/loss"}, {"metric": "cost/seconds"}])
    assert found.front([(1, 5), (2, 2), (3, 3), (5, 1), None, (math.nan, 0), (1, 5)]) == (0, 1, 3, 6)


def test_constraints_say_by_how_much_they_are_broken() -> None:
    limits = [{"metric": "x", "at_most": 2}, {"metric": "z", "at_least": 1}]
    found = objective(constraints=limits)
    assert found.violations({"x": 2.5}) == (0.5, math.inf)
    assert found.violations({"x": 1.0, "z": 1.0}) == (-1.0, 0.0)


def test_costs_leave_out_pauses() -> None:
    times = (0, 1000, 2000, 60_000, 61_000)  # an evaluation, or a restart, between the third and the fourth
    records = [StepRecord(n + 1, time, 1, {"train/tokens": 100.0, "x": float(n)}) for n, time in enumerate(times)]
    assert costs(records) == {"cost/tokens": 500.0, "cost/seconds": 6.0, "cost/steps": 5.0}
    assert costs([]) == {}
    assert latest(records) == {"train/tokens": 100.0, "x": 4.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goals": [{"metric": "a", "sum": {"b": 1}}]}, "one of both"),
        ({"goals": [{"sum": {"b": 0}}]}, "one of both"),
        ({"goals": [{"metric": "a"}], "mode": "min"}, "goals take the place of metric and mode"),
        ({"constraints": [{"metric": "a"}]}, "give at_most or at_least"),
        ({"sampler": "gp"}, "set searcher: optuna"),
        ({"searcher": "mixture", "scheduler": {}}, "set scheduler to null"),
        ({"initial": 3}, "initial is of searcher 'mixture'"),
        ({"warm_start": ["x"]}, "needs a searcher that learns"),
    ],
)
def test_goals_that_say_two_things_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        objective(**changes)
