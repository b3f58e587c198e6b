"""A run whose loss ended above its start says that it learned nothing."""

import math
from pathlib import Path

import pytest

from didact.cluster.finetuning import loss_that_rose
from didact.tracking import JsonLinesTracker


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([2.0, 9.0, 30.0, 40.0, 50.0], "began at 2.0000 and ended at 50.0000; try a lower training.learning_rate"),
        ([2.0] * 10 + [3.0] * 10, "began at 2.0000 and ended at 3.0000"),
        ([2.0, 1.0, 1.0, 1.0, math.nan], "ended at nan"),
        ([2.0, 1.5, 1.2, 1.1, 1.0], None),
        ([2.0, 9.0, 9.0, 9.0, 1.9], None),
        ([2.0] * 5, None),
        ([1.0, 2.0, 3.0], None),  # too few to say
        ([], None),
    ],
)
def test_where_the_loss_ended(tmp_path: Path, losses: list[float], said: str | None) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", attempt=1)
    for step, loss in enumerate(losses, 1):
        tracker.log(step, {"train/loss": loss}, loss_hex=loss.hex())
    found = loss_that_rose(tmp_path / "steps.jsonl")
    assert (found is None) if said is None else (found is not None and said in found)
