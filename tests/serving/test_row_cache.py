"""Keys and values that grow in place, beside a cache that copies everything at every change."""

import random

import pytest
import torch

from didact.serving.engine.memory.row_cache import RowLayer, keeping_order, row_cache


class Plain:
    """The twin: a list of columns for each row."""

    def __init__(self, states: torch.Tensor) -> None:
        self.rows = list(states)

    def update(self, states: torch.Tensor) -> None:
        self.rows = [torch.cat([row, more], 1) for row, more in zip(self.rows, states, strict=True)]

    def keep(self, order: list[int], surplus: int) -> None:
        self.rows = [self.rows[index][:, surplus:] for index in order]

    def join(self, other: "Plain") -> None:
        columns = max(self.rows[0].shape[1], other.rows[0].shape[1])
        rows = [*self.rows, *other.rows]
        self.rows = [torch.nn.functional.pad(row, (0, 0, columns - row.shape[1], 0)) for row in rows]


@pytest.mark.parametrize("seed", range(8))
def test_any_order_of_changes_gives_what_copying_gives(seed: int) -> None:
    choose, torch_random = random.Random(seed), torch.Generator().manual_seed(seed)

    def states(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, 2, columns, 3, generator=torch_random)

    def fill(rows: int, columns: int) -> tuple[RowLayer, Plain]:
        cache, first = row_cache(), states(rows, columns)
        cache.update(first, first + 1, 0)
        return cache.layers[0], Plain(first)

    layer, plain = fill(2, 5)
    for _ in range(200):
        change = choose.choice(["step", "step", "step", "join", "leave", "piece"])
        rows = len(plain.rows)
        if change == "join" and rows < 9:
            other, twin = fill(choose.randint(1, 3), choose.randint(1, 150))
            layer.join(other)
            plain.join(twin)
        elif change == "leave" and rows > 1:
            order = keeping_order(sorted(choose.sample(range(rows), choose.randint(1, rows))))
            surplus = choose.randint(0, min(40, plain.rows[0].shape[1] - 1))
            layer.keep(order, surplus)
            plain.keep(order, surplus)
        else:
            more = states(rows, 1 if change == "step" else 30)
            layer.update(more, more + 1)
            plain.update(more)
        expected = torch.stack(plain.rows)
        assert torch.equal(layer.keys, expected)
        assert torch.equal(layer.values, torch.where(expected != 0, expected + 1, 0.0))
        assert layer.get_seq_length() == expected.shape[2]


def test_rows_that_begin_later_have_nothing_before() -> None:
    cache, states = row_cache(rows=3), torch.randn(3, 2, 150, 4)
    for rows, columns in ((1, slice(0, 70)), (2, slice(70, 149)), (3, slice(149, 150))):
        keys, values = cache.update(states[:rows, :, columns], states[:rows, :, columns] + 1, 0)
        assert len(keys) == len(values) == rows
    layer, expected = cache.layers[0], states.clone()
    expected[1, :, :70], expected[2, :, :149] = 0, 0
    assert torch.equal(layer.keys, expected)
    assert torch.equal(layer.values, torch.where(expected != 0, expected + 1, 0.0))


def test_a_step_and_a_row_that_leaves_move_no_memory() -> None:
    cache, first = row_cache(), torch.ones(4, 2, 10, 3)
    cache.update(first, first, 0)
    layer = cache.layers[0]
    place = layer.keys.data_ptr()
    for _ in range(60):
        layer.update(first[:, :, :1], first[:, :, :1])
    layer.keep([0, 1, 2], 0)
    assert layer.keys.data_ptr() == place


def test_what_a_row_left_behind_is_nothing_to_the_next() -> None:
    cache, first = row_cache(), torch.ones(2, 1, 8, 2)
    first[1] = torch.nan
    cache.update(first, first, 0)
    layer = cache.layers[0]
    layer.keep([0], 0)
    other, short = row_cache(), torch.ones(1, 1, 3, 2)
    other.update(short, short, 0)
    layer.join(other.layers[0])
    assert torch.isfinite(layer.keys).all()
    assert layer.keys[1].sum() == 6


def test_few_rows_move_when_others_leave() -> None:
    assert keeping_order([0, 1, 2]) == [0, 1, 2]
    assert keeping_order([1, 2, 3]) == [3, 1, 2]
    assert keeping_order([4, 5]) == [5, 4]
    assert keeping_order([]) == []
