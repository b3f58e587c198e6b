"""Settings: what is drawn, under which conditions, and in which steps."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.spec.search.space import Distribution
from didact.tuning.searchers.draws import QuasiRandomProposer, RandomProposer
from didact.tuning.spaces import Space, extremes, old_values
from didact.tuning.spaces.settings import coordinates, from_unit, levels, to_unit

SPACE = {
    "adapter.r": {"choice": [4, 8]},
    "adapter.dropout": {"uniform": [0.0, 0.2]},
    "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
    "training.micro_batch_size": {"randint": [1, 3]},
}
METHODS = {
    "adapter.alpha": {"of": "adapter.r", "times": 2},
    "adapter.r": {"choice": [4, 8], "when": {"adapter.method": ["lora", "adalora"]}},
    "adapter.method": {"choice": ["lora", "ia3"]},
    "adapter.dropout": {"uniform": [0, 0.1], "when": {"adapter.r": 8}},
}


def read(space: dict[str, Any]) -> dict[str, Distribution]:
    return validate(SweepSpec, {"name": "s", "recipe": "r.yaml", "space": space}, "s.yaml").space


def draws(space: dict[str, Any], count: int, seed: int = 0) -> list[dict[str, Any]]:
    proposer = RandomProposer(Space(read(space)), seed)
    return [proposer.propose(index, ()).values for index in range(count)]


def test_draws_lie_within_bounds() -> None:
    drawn = draws(SPACE, 300)
    assert all(set(values) == set(SPACE) for values in drawn)
    assert {values["adapter.r"] for values in drawn} == {4, 8}
    assert {values["training.micro_batch_size"] for values in drawn} == {1, 2, 3}, "both bounds are included"
    rates = [values["training.learning_rate"] for values in drawn]
    assert 1e-4 <= min(rates) < max(rates) <= 1e-2
    assert 0.4 < sum(rate < 1e-3 for rate in rates) / len(rates) < 0.6, "uniform in the logarithm"


@pytest.mark.parametrize("space", [SPACE, {"adapter.r": {"grid": [1, 2]}, "adapter.dropout": {"uniform": [0, 0.2]}}])
def test_more_draws_go_on_where_the_search_was(space: dict[str, Any]) -> None:
    assert draws(space, 3) + draws(space, 8)[3:] == draws(space, 8)
    assert draws(space, 8) != draws(space, 8, seed=1)


def test_grids_are_tried_in_full_again_and_again() -> None:
    space = {"adapter.r": {"grid": [1, 2]}, "tokens.packing": {"grid": [True, False]}}
    drawn = draws({**space, "adapter.dropout": {"uniform": [0, 0.2]}}, 8)
    assert Counter((each["adapter.r"], each["tokens.packing"]) for each in drawn) == {
        (1, True): 2, (1, False): 2, (2, True): 2, (2, False): 2
    }  # fmt: skip
    assert len({each["adapter.dropout"] for each in drawn}) == 8


def test_a_setting_is_drawn_only_where_its_conditions_hold() -> None:
    drawn = draws(METHODS, 200)
    kinds = {frozenset(each) for each in drawn}
    lora = {"adapter.method", "adapter.r", "adapter.alpha"}
    assert kinds == {frozenset({"adapter.method"}), frozenset(lora), frozenset({*lora, "adapter.dropout"})}
    assert all(each["adapter.alpha"] == 2 * each["adapter.r"] for each in drawn if "adapter.r" in each)
    assert all(isinstance(each["adapter.alpha"], int) for each in drawn if "adapter.r" in each)
    assert all(("adapter.r" in each) == (each["adapter.method"] == "lora") for each in drawn)
    assert all(("adapter.dropout" in each) == (each.get("adapter.r") == 8) for each in drawn)


def test_corners_show_every_extreme_value_under_its_conditions() -> None:
    corners = list(Space(read(METHODS)).corners())
    assert {"adapter.method": "ia3"} in corners
    assert {"adapter.method": "lora", "adapter.r": 8, "adapter.alpha": 16, "adapter.dropout": 0.1} in corners


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"randint": [8, 64], "step": 24}, (8, 32, 56)),
        ({"randint": [4, 64], "factor": 2}, (4, 8, 16, 32, 64)),
        ({"uniform": [0, 0.3], "step": 0.1}, (0, 0.1, 0.2, 0.3)),
        ({"loguniform": [1e-4, 1e-1], "factor": 10}, (1e-4, 1e-3, 1e-2, 1e-1)),
        ({"choice": ["a", None]}, ("a", None)),
        ({"uniform": [0, 1]}, None),
    ],
)
def test_steps(kind: dict[str, Any], expected: tuple[Any, ...] | None) -> None:
    read_kind: Any = read({"adapter.r": kind})["adapter.r"]
    found = levels(read_kind)
    if expected is None or found is None:
        assert found == expected
        return
    assert [value if isinstance(value, str | None) else pytest.approx(value) for value in expected] == list(found)
    assert [from_unit(read_kind, to_unit(read_kind, value)) for value in found] == list(found)
    assert from_unit(read_kind, 1.0) == found[-1]
    assert extremes(read_kind) == (found if "choice" in kind else (found[0], found[-1]))


def test_numbers_and_units_are_each_others_inverse() -> None:
    kind: Any = read({"training.learning_rate": {"loguniform": [1e-4, 1e-2]}})["training.learning_rate"]
    assert from_unit(kind, 0.5) == pytest.approx(1e-3)
    assert to_unit(kind, 1e-3) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="outside"):
        to_unit(kind, 1.0)
    choice: Any = read({"adapter.r": {"choice": [4, 8, 16]}})["adapter.r"]
    assert coordinates(choice, 8) == [0, 1, 0]


def test_quasi_random_draws_fill_the_space_evenly() -> None:
    space = Space(read({"adapter.dropout": {"uniform": [0, 1]}, "training.learning_rate": {"uniform": [0, 1]}}))
    proposer = QuasiRandomProposer(space, 3)
    points = [tuple(proposer.propose(index, ()).values.values()) for index in range(16)]
    cells = Counter((int(4 * x), int(4 * y)) for x, y in points)
    assert len(cells) == 16, "one in each of sixteen squares"
    assert points[5:] == [tuple(proposer.propose(index, ()).values.values()) for index in range(5, 16)]


def test_samples_of_earlier_versions_are_still_read() -> None:
    space = read({"data.weights": {"simplex": ["a", "b"]}, "adapter.r": {"choice": [4]}})
    sample = {"data.weights.a": math.exp(-3), "data.weights.b": math.exp(-1), "adapter.r": 4}
    assert old_values(space, sample) == {
        "data.sources.a.weight": pytest.approx(0.75), "data.sources.b.weight": pytest.approx(0.25), "adapter.r": 4
    }  # fmt: skip


def test_neighbours_are_near_and_possible() -> None:
    space = Space(read(METHODS))
    found = space.near(np.random.default_rng(0), {"adapter.method": "lora", "adapter.r": 4, "adapter.alpha": 8}, 200)
    same = sum(each.get("adapter.r") == 4 for each in found)
    assert 140 < same < 200 and all(space.fits(each) for each in found)
    assert not space.fits({"adapter.method": "lora"}) and not space.fits({"adapter.method": "oft"})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"adapter.r": {"uniform": [2, 1]}}, "bounds must be lower, then higher"),
        ({"adapter.r": {"randint": [3, 3]}}, "bounds must be lower, then higher"),
        ({"adapter.r": {"chioce": [1]}}, "expected a mapping with one of the keys choice, uniform"),
        ({"adapter.r": [4, 8]}, "expected a mapping with one of the keys choice, uniform"),
        ({"adapter.r": {"randint": [1, 8], "factor": 2, "step": 3}}, "factor goes without step"),
        ({"adapter.r": {"choice": [1], "when": {"adapter.method": "lora"}}}, "'adapter.method', which is no setting"),
        (
            {"adapter.alpha": {"of": "adapter.r"}, "adapter.dropout": {"choice": [0]}},
            "'adapter.r', which is no setting",
        ),
        ({"adapter.alpha": {"of": "adapter.r"}, "adapter.r": {"of": "adapter.alpha"}}, "in a circle"),
        ({"adapter.r": {"grid": [1], "when": {"adapter.b": 1}}, "adapter.b": {"choice": [1]}}, "always tried in full"),
    ],
)
def test_impossible_space_is_explained_in_one_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read(space)
    assert len(str(caught.value).splitlines()) == 2
