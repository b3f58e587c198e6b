"""Going on after the end equals a longer run where the schedule has no end, and does not where it has."""

from pathlib import Path

import pytest
import torch

from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

CONSTANT = {"training__schedule": "constant", "training__warmup_steps": 2}


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        (CONSTANT, True),
        ({**CONSTANT, "adapter__dropout": 0.0}, True),
        ({**CONSTANT, "training__max_grad_norm": 0.1, "training__weight_decay": 0.1}, True),
        ({**CONSTANT, "adapter": {"method": "ia3"}}, True),
        ({"training__schedule": "cosine"}, False),
        ({"training__schedule": "constant", "training__warmup_share": 0.5}, False),
    ],
)
def test_two_parts_are_one_run_where_the_rate_has_no_end(
    tmp_path: Path, settings: dict[str, object], exact: bool
) -> None:
    first = run_loop(tiny_recipe(tmp_path, training__steps=4, **settings), tmp_path / "parts")
    second = run_loop(tiny_recipe(tmp_path, training__steps=9, **settings), tmp_path / "parts")
    whole = run_loop(tiny_recipe(tmp_path, training__steps=9, **settings), tmp_path / "whole")
    assert second.start == 4 and second.done == 9
    same = [torch.equal(second.weights[name], each) for name, each in whole.weights.items()]
    assert all(same) if exact else not any(same)
    assert ([*first.lineage, *second.lineage] == whole.lineage) is exact
