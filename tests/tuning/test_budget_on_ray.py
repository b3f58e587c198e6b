"""A whole search within a budget of tokens: what its trials and its runs with fresh seeds really learned."""

import json
from pathlib import Path

import pytest

from didact.spec import SweepSpec, load_spec, to_json
from didact.tracking import effective_records
from didact.tuning import run_sweep
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]
BUDGET = 24_000
"""Some thirty times what a trial learns."""
SWEEP = {
    "name": "budgeted",
    "recipe": "recipe.json",
    "overrides": {"training.evaluate_every": 2, "training.checkpoint_every": 8, "placement.num_workers": 1},
    "space": {"training.learning_rate": {"loguniform": [1e-4, 1e-1]}, "adapter.r": {"choice": [2, 4]}},
    "max_concurrent": 2,
    "budget": f"{BUDGET} tokens",
}


@pytest.mark.parametrize("scheduler", [None, {"grace_steps": 2}], ids=["all whole", "stopped early"])
def test_a_budget_of_tokens_is_kept_within_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheduler: object
) -> None:
    recipe = tiny_recipe(tmp_path, training__steps=8, training__global_batch_size=4, evaluation=None)
    (tmp_path / "recipe.json").write_text(to_json(recipe))
    file = tmp_path / "search.json"
    file.write_text(json.dumps({**SWEEP, "scheduler": scheduler}))
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    result = run_sweep(load_spec(SweepSpec, file), file, tmp_path / "runs")
    assert result.confirmation is not None and len(result.trials) >= 8 and result.spending is not None
    learned = sum(
        record.metrics["train/tokens"]
        for part in ("trials", "confirm")
        for steps in (tmp_path / "runs" / "budgeted" / part).glob("*/steps.jsonl")
        for record in effective_records(steps)
    )
    assert 0.9 * BUDGET <= learned <= 1.1 * BUDGET
    assert f"{round(100 * learned / BUDGET)}%" in result.spending
