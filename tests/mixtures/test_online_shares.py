"""Shares that follow losses: against a plain twin, and on made-up losses whose slopes are known."""

import random
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from didact.mixtures import Mixture, build_mixture, online_shares
from didact.mixtures.online import Point, shrunk, speed
from didact.spec import DataSpec, OnlineMixingSpec

RULE = OnlineMixingSpec()


def data(**fields: Any) -> DataSpec:
    return DataSpec(sources=[{"name": name, "path": "-"} for name in "abc"], **fields)


def falling(by: float, noise: float, seed: int, steps: int = 40) -> list[Point]:
    """Losses that begin at 2 and fall by so much a step."""
    draw = random.Random(seed)
    return [(step, 2 - by * step + draw.gauss(0, noise), draw.randint(20, 60)) for step in range(steps)]


def plain_twin(prior: list[float], points: list[list[Point]], temperature: float, floor: float) -> np.ndarray:
    """The same with numpy's own regression, written down formula by formula."""
    falls, variances = [], []
    for each in points:
        steps, losses, weights = np.array(each, float).T
        design = np.stack([np.ones_like(steps), steps], axis=1)
        normal = np.linalg.inv(design.T @ (weights[:, None] * design))
        line = normal @ design.T @ (weights * losses)
        off = losses - design @ line
        falls.append(-line[1])
        variances.append(weights @ off**2 / (len(steps) - 2) * normal[1, 1])
    fall, variance = np.array(falls), np.array(variances)
    w = 1 / variance
    mean = np.average(fall, weights=w)
    between = max(0.0, (w @ (fall - mean) ** 2 - (len(fall) - 1)) / (w.sum() - (w**2).sum() / w.sum()))
    moved = np.maximum(0, mean + between / (between + variance) * (fall - mean))
    share = np.array(prior)
    scale = np.sqrt(share @ (moved**2 + variance))
    raised = share * np.exp((moved - share @ moved) / scale / temperature)
    return floor * share + (1 - floor) * raised / raised.sum()


@pytest.mark.parametrize("seed", range(8))
def test_shares_are_those_of_the_plain_twin(seed: int) -> None:
    draw = random.Random(seed)
    prior = np.random.default_rng(seed).dirichlet(np.ones(4)).tolist()
    points = [falling(draw.uniform(0, 0.02), 0.05, 10 * seed + number) for number in range(4)]
    rule = OnlineMixingSpec(temperature=draw.uniform(0.3, 3), floor=draw.uniform(0, 0.9))
    found = online_shares(prior, points, rule)
    assert found == pytest.approx(plain_twin(prior, points, rule.temperature, rule.floor), rel=1e-9)
    assert sum(found) == pytest.approx(1)


def test_a_line_through_three_points_by_hand() -> None:
    found = speed([(0, 3.0, 1), (1, 2.0, 1), (2, 1.6, 1)])
    assert found is not None and found.fall == pytest.approx(0.7)
    # What is left is 0.1, -0.2, 0.1: their squares are 0.06, over 1 degree of freedom, over a spread of 2.
    assert found.variance == pytest.approx(0.03)
    assert speed([(0, 3.0, 1), (1, 2.0, 1)]) is None


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_what_is_learned_out_loses_and_what_still_learns_gains(floor: float) -> None:
    rule = OnlineMixingSpec(floor=floor)
    shares = online_shares([0.5, 0.3, 0.2], [falling(0, 0.02, 1), falling(0.02, 0.02, 2), falling(0.02, 0.02, 3)], rule)
    assert floor * 0.5 <= shares[0] < 0.3 and shares[1] > 0.4 and shares[2] > 0.27
    assert shares[1] / shares[2] == pytest.approx(1.5, rel=0.05), "those that learn alike keep their ratio"


@pytest.mark.parametrize("by", [0.0, 0.02])
def test_without_a_difference_shares_stay_near_the_prior(by: float) -> None:
    prior = [0.5, 0.3, 0.2]
    moved = [
        max(
            abs(share - part)
            for share, part in zip(
                online_shares(prior, [falling(by, 0.05, 3 * seed + number) for number in range(3)], RULE),
                prior,
                strict=True,
            )
        )
        for seed in range(100)
    ]
    assert np.median(moved) < 0.02 and max(moved) < 0.25
    assert sum(each < 1e-9 for each in moved) > 40, "most differences are put down to chance"


def test_a_source_that_was_not_seen_is_taken_to_learn_as_the_others() -> None:
    one, other = speed(falling(0.02, 0.01, 1)), speed(falling(0.0, 0.01, 2))
    assert one and other
    falls = shrunk([one, other, None])
    assert falls[1] < falls[2] < falls[0]
    assert online_shares([0.5, 0.5], [falling(0.02, 0.01, 1), []], RULE) == (0.5, 0.5)
    assert online_shares([0.5, 0.5], [[], []], RULE) == (0.5, 0.5)


def test_a_source_without_weight_never_gets_any() -> None:
    shares = online_shares([0.0, 0.6, 0.4], [[], falling(0, 0.01, 1), falling(0.02, 0.01, 2)], RULE)
    assert shares[0] == 0 and sum(shares) == pytest.approx(1)


def test_pieces_follow_each_other_without_a_row_twice() -> None:
    mixture = Mixture.build(["a", "b"], [50, 70], [1.0, 1.0], [1, 1], "rows", seed=3)
    changed = mixture.then(21, (9, 1)).then(31, (2, 8))
    assert changed.ids(0, 21) == mixture.ids(0, 21)
    ids = changed.ids(0, 61)
    assert [sum(each.source == 0 for each in ids[begin:end]) for begin, end in ((21, 31), (31, 41), (41, 61))] == [
        9,
        2,
        4,
    ]
    drawn = [(each.source, each.row, each.epoch) for each in ids]
    assert len(set(drawn)) == 61
    again = changed.then(31, (5, 5))
    assert again.ids(0, 31) == ids[:31] and len(again.pieces) == 3


def test_the_order_that_is_decided_has_fingerprints_of_its_own() -> None:
    sizes = ([90, 90, 90], [5.0, 5.0, 5.0], 400)
    plain, online = build_mixture(data(), *sizes), build_mixture(data(online_mixing={}), *sizes)
    slower = build_mixture(data(online_mixing={"every_steps": 30}), *sizes)
    decided = [{"after": 5, "draws": {"a": 30, "b": 10}}]
    followed = build_mixture(data(online_mixing={"decided": decided}), *sizes, 8)
    later = build_mixture(data(online_mixing={"decided": [{**decided[0], "after": 6}]}), *sizes, 8)
    prints = {each.fingerprint(["x", "y", "z"]) for each in (plain, online, slower, followed, later)}
    assert len(prints) == 5
    assert online.online == OnlineMixingSpec() and followed.online is None
    assert [sum(each.source == source for each in followed.ids(40, 80)) for source in range(3)] == [30, 10, 0]
    assert followed.ids(0, 40) == plain.ids(0, 40)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"curriculum": [{"until": 1, "weights": {"a": 1, "b": 1, "c": 1}}]}, "curriculum states weights and online"),
        ({"max_epochs": 2}, "max_epochs would change the weights that online_mixing decides"),
        ({"online_mixing": {"decided": [{"after": 3, "draws": {"d": 1}}]}}, "decided.0 names 'd'; sources are a, b, c"),
        ({"online_mixing": {"decided": [{"after": 3, "draws": {"a": 0}}]}}, "no source is drawn"),
        (
            {"online_mixing": {"decided": [{"after": 3, "draws": {"a": 1}}] * 2}},
            r"after must increase from one of decided to the next; found \[3, 3\]",
        ),
    ],
)
def test_what_online_mixing_does_not_go_with_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        data(**{"online_mixing": {}, **fields})
    with pytest.raises(ValidationError, match="shares among sources with a weight; found 'a' alone"):
        DataSpec(sources=[{"name": "a", "path": "-"}, {"name": "b", "path": "-", "weight": 0}], online_mixing={})
