"""Differences between arms that were all measured under the same blocks."""

import math

import numpy as np
import pytest
from scipy import stats

from didact.evaluation.statistics import blocked_noise, clustered_difference


def test_two_arms_have_the_interval_of_pairs() -> None:
    first, second = [1.0, 2.5, 3.0, 2.0], [1.4, 2.6, 3.7, 2.1]
    pairs = clustered_difference(first, second)
    noise = blocked_noise([first, second])
    assert noise.freedom == 3
    assert noise.half_width() == pytest.approx((pairs.high - pairs.low) / 2)


def test_noise_is_what_arms_and_blocks_leave() -> None:
    noise = blocked_noise([[1.0, 2.0], [3.0, 4.0], [0.0, 4.0]])  # the rest is +-0.5, +-0.5, -+1
    assert noise.freedom == 2
    assert noise.standard_error == pytest.approx(math.sqrt(2 * (4 * 0.25 + 2 * 1.0) / 2 / 2))
    assert noise.half_width(3) == pytest.approx(stats.t.ppf(1 - 0.05 / 3 / 2, 2) * noise.standard_error)


def test_what_blocks_do_to_all_arms_is_no_noise() -> None:
    assert blocked_noise([[1.0, 50.0, 3.0], [2.0, 51.0, 4.0]]).standard_error == pytest.approx(0)


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_one_arm_or_one_block_says_nothing_of_chance(values: list[list[float]]) -> None:
    assert blocked_noise(values).half_width() == math.inf


def test_intervals_hold_for_all_comparisons_together() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        values = rng.normal(size=(5, 2)) + 10 * rng.normal(size=2)
        half = blocked_noise(values.tolist()).half_width(3)
        gaps = values[:3].mean(axis=1) - values[3].mean()
        held += bool((np.abs(gaps) <= half).all())
    assert held >= 0.94 * 400


@pytest.mark.parametrize("values", [[[1.0, 2.0], [1.0]], [[1.0, math.nan], [1.0, 2.0]]])
def test_gaps_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="found"):
        blocked_noise(values)
