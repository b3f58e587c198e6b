import numpy as np
import pytest

from didact.mixtures.schedule import PERIOD, quantise, schedule

WEIGHTS = [
    [1.0],
    [1.0, 1.0],
    [1.0, 1.0, 1.0],
    [0.9, 0.1],
    [0.999999, 1e-6],
    [5.0, 3.0, 2.0, 1.0, 1.0, 0.5],
    [1e-9, 1.0, 1e-12, 2.0, 1e-3],
    [1.0 / (rank + 1) for rank in range(40)],
    [2.0**-rank for rank in range(30)],
    [1.0] * 137,
    [0.5, *[0.5 / 4999] * 4999],
]


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: f"{len(weights)} sources")
def test_after_every_prefix_each_source_is_less_than_one_sample_off(weights: list[float]) -> None:
    shares = quantise(weights)
    order = np.array(schedule(shares))
    assert len(order) == PERIOD
    positions = np.arange(1, PERIOD + 1)
    for source, share in enumerate(shares):
        drawn = np.cumsum(order == source)
        # in exact whole numbers: |drawn - positions * share / PERIOD| < 1
        assert np.abs(drawn * PERIOD - positions * share).max() < PERIOD
        assert drawn[-1] == share


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: f"{len(weights)} sources")
def test_shares_sum_to_the_period_and_none_is_lost(weights: list[float]) -> None:
    shares = quantise(weights)
    assert sum(shares) == PERIOD
    assert min(shares) >= 1
    lifted = sum(weight / sum(weights) * PERIOD < 1 for weight in weights)
    for share, weight in zip(shares, weights, strict=True):
        exact = weight / sum(weights) * PERIOD
        assert abs(share - exact) <= 1 + lifted


def test_largest_remainders_get_what_is_left() -> None:
    assert quantise([1, 1, 1]) == (3334, 3333, 3333)
    assert quantise([0.33346, 0.33335, 0.33319]) == (3335, 3333, 3332)
    assert quantise([1e-9, 1.0]) == (1, 9999)


def test_scaling_all_weights_changes_nothing() -> None:
    assert quantise([3.0, 1.0, 0.25]) == quantise([12.0, 4.0, 1.0])
