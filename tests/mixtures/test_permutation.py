import itertools
import math
from collections import Counter

import pytest

from didact.mixtures.permutation import permuted


@pytest.mark.parametrize("size", [*range(1, 70), 100, 255, 256, 257, 1000, 4097])
@pytest.mark.parametrize("epoch", [0, 1])
def test_every_row_comes_exactly_once(size: int, epoch: int) -> None:
    assert sorted(permuted(index, size, (0, "source", epoch)) for index in range(size)) == list(range(size))


def test_seed_name_and_epoch_each_give_another_order() -> None:
    keys = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (1, "a", 1)]
    orders = {tuple(permuted(index, 100, key) for index in range(100)) for key in keys}
    assert len(orders) == len(keys)
    assert tuple(range(100)) not in orders


@pytest.mark.parametrize("size", [2, 3, 5, 16, 21])
def test_each_row_is_first_equally_often(size: int) -> None:
    num_keys = 4000
    counts = Counter(permuted(0, size, (seed, "source", 0)) for seed in range(num_keys))
    expected = num_keys / size
    chi_square = sum((counts[row] - expected) ** 2 / expected for row in range(size))
    freedom = size - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_do_not_stay_neighbours() -> None:
    order = [permuted(index, 1000, (0, "source", 0)) for index in range(1000)]
    assert sum(abs(one - two) == 1 for one, two in itertools.pairwise(order)) < 15


def test_a_large_source_needs_no_memory() -> None:
    size = 10**12 + 39
    drawn = {permuted(index, size, (0, "source", 0)) for index in range(1000)}
    assert len(drawn) == 1000
    assert max(drawn) < size and max(drawn) > size // 2
