"""What a budget is spent on, and how it is kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from didact.errors import SpecError
from didact.files import write_json
from didact.preparation import prepare_data
from didact.runs import processor
from didact.spec import SweepSpec, to_json, validate, with_absolute_paths
from didact.spec.search.budget import Budget, parse_budget
from didact.spec.search.sweep import ConfirmSpec
from didact.tuning import Search, TrialResult, load_search
from didact.tuning.budget import (
    BudgetPlan,
    Ledger,
    Pace,
    Prices,
    keep_plan,
    kept_plan,
    pace_of_earlier_runs,
    plan_budget,
    spread,
)
from tests.fakes.recipes import tiny_recipe


@pytest.mark.parametrize(
    ("written", "amount", "unit"),
    [
        ("2h", 7200, "seconds"),
        ("1h 30m", 5400, "seconds"),
        ("1h30m", 5400, "seconds"),
        ("90 minutes", 5400, "seconds"),
        ("1.5d", 129600, "seconds"),
        ("5e6 tokens", 5e6, "tokens"),
        ("5,000,000 tokens", 5e6, "tokens"),
        ("2.5M tokens", 2.5e6, "tokens"),
        ("$20", 20, "dollars"),
        ("12.5 USD", 12.5, "dollars"),
    ],
)
def test_budgets_are_written_as_people_write_them(written: str, amount: float, unit: str) -> None:
    assert parse_budget(written) == Budget(amount, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize("written", ["", "2", "soon", "0h", "2 hours or so", "-3h", "5e6", "tokens"])
def test_what_is_no_budget_is_refused(written: str) -> None:
    with pytest.raises(SpecError, match=r"budget: found .*expected"):
        validate(
            SweepSpec,
            {"name": "s", "recipe": "r", "space": {"adapter.r": {"choice": [1, 2]}}, "budget": written},
            "s.yaml",
        )


TOKENS = Prices("tokens", full=1000.0, confirmed=1000.0)


def test_full_trials_are_preferred_and_stopped_only_as_early_as_needed() -> None:
    rich = spread("b", 40_000, TOKENS, num_steps=32, every=4, enough=8)
    assert (rich.rungs, rich.trials) == ((), 40)
    poorer = spread("b", 7_000, TOKENS, num_steps=32, every=4, enough=8)
    assert poorer.rungs == (16,) and poorer.trials == 9
    poorest = spread("b", 3_000, TOKENS, num_steps=32, every=4, enough=8)
    assert poorest.rungs == (4, 8, 16) and 5 <= poorest.trials < 8
    never = spread("b", 3_000, TOKENS, num_steps=32, every=4, enough=8, reduction_factor=None)
    assert never.rungs == () and never.trials == 3


def test_rungs_lie_at_measured_steps() -> None:
    assert spread("b", 3_000, TOKENS, num_steps=30, every=10, enough=9).rungs == (10, 20)
    assert spread("b", 3_000, TOKENS, num_steps=30, every=30, enough=9).rungs == ()


def test_expected_costs_are_those_of_asynchronous_halving() -> None:
    plan = spread("b", 7_000, TOKENS, num_steps=32, every=4, enough=8)
    rng, costs = np.random.default_rng(0), []
    for _ in range(300):  # one after the other, each against those before it at step 16
        quality, cost = rng.uniform(size=plan.trials), 0.0
        for place, own in enumerate(quality):
            cost += 1000.0 if place == 0 or own >= np.percentile(quality[:place], 50) else 500.0
        costs.append(cost)
    assert plan.search_cost == pytest.approx(float(np.mean(costs)), rel=0.08)
    assert plan.search_cost <= 7_000


def test_a_third_at_most_goes_to_fresh_seeds_where_the_file_says_nothing() -> None:
    plan = spread("b", 60_000, TOKENS, num_steps=32, every=4, choose_confirm=True)
    assert plan.confirm == ConfirmSpec(top=3, seeds=3) and plan.confirm_cost == 15_000 and plan.trials == 45
    assert spread("b", 20_000, TOKENS, num_steps=32, every=4, choose_confirm=True).confirm == ConfirmSpec(top=1)
    assert spread("b", 10_000, TOKENS, num_steps=32, every=4, choose_confirm=True).confirm is None
    stated = spread("b", 10_000, TOKENS, num_steps=32, every=4, confirm=ConfirmSpec(top=1, seeds=2))
    assert stated.confirm_cost == 6_000 and stated.search_cost <= 4_000


def test_time_is_shared_by_runs_beside_each_other() -> None:
    prices = Prices("seconds", full=100.0, confirmed=100.0, start=20.0, at_once=4)
    plan = spread("1h", 3600, prices, num_steps=32, every=4, choose_confirm=True, pace=Pace(50, 20, "an earlier run"))
    assert plan.confirm == ConfirmSpec(top=3, seeds=3) and plan.confirm_cost == 400, "15 runs in four rounds"
    assert plan.trials == 128 and plan.search_cost == 3200
    assert "128 of 32 steps, 4 at once, none stops early: about 53m 20s (89%)" in plan.lines[1]
    assert plan.lines[-1] == "pace       50 tokens/s and 20s before the first step, from an earlier run"


def test_less_than_one_trial_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found '900 tokens'.*takes about 1,000 tokens; give at least 1,000 tokens"):
        spread("900 tokens", 900, TOKENS, num_steps=32, every=4)
    with pytest.raises(ValueError, match=r"and 6,000 tokens for confirm; give at least 7,000 tokens"):
        spread("6500 tokens", 6500, TOKENS, num_steps=32, every=4, confirm=ConfirmSpec(top=1, seeds=2))


def trial(tokens: float, *, ended: bool = True, steps: int = 32) -> TrialResult:
    metrics = {"cost/tokens": tokens}
    return TrialResult("t", {}, 1.0, steps, "finished", Path("t"), metrics=metrics, ended=ended)


def spend(plan: BudgetPlan, ledger: Ledger, price: float) -> float:
    """Tokens that a search takes whose trials all cost `price`, one after the other."""
    done: list[TrialResult] = []
    while ledger.may_begin(done):
        done.append(trial(price))
    return len(done) * price + plan.confirm_cost


@pytest.mark.parametrize("price", [700.0, 1000.0, 1300.0])
def test_tokens_are_kept_within_a_tenth_whatever_trials_turn_out_to_cost(tmp_path: Path, price: float) -> None:
    plan = spread("b", 20_000, TOKENS, num_steps=32, every=4, choose_confirm=True)
    assert 0.9 * 20_000 <= spend(plan, Ledger(tmp_path / "spent.json", plan), price) <= 1.1 * 20_000


def test_trials_that_still_run_are_counted_to_their_end(tmp_path: Path) -> None:
    plan = spread("b", 4_000, TOKENS, num_steps=32, every=4, reduction_factor=None)
    ledger = Ledger(tmp_path / "spent.json", plan)
    running = [trial(10, ended=False, steps=1)] * 3
    assert ledger.may_begin(running) and not ledger.may_begin([*running, running[0]])
    assert ledger.may_begin([]), "a search without any trial has no use"


def test_time_of_all_attempts_counts(tmp_path: Path) -> None:
    prices = Prices("seconds", full=100.0, confirmed=100.0, at_once=2)
    plan = spread("1000s", 1000, prices, num_steps=32, every=4)
    ledger = Ledger(tmp_path / "spent.json", plan)
    ledger.begin(0)
    ledger.alive(400)
    assert ledger.elapsed(400) == 400
    ledger.begin(5000)  # killed at 400, continued later
    assert ledger.elapsed(5100) == 500
    done = [trial(1)] * 10  # two at once, so that each took 100 s
    assert ledger.may_begin(done, 5100) and ledger.may_begin(done, 5500) and not ledger.may_begin(done, 5560)


def test_the_plan_is_kept_for_a_continued_sweep(tmp_path: Path) -> None:
    plan = spread("b", 7_000, TOKENS, num_steps=32, every=4, confirm=ConfirmSpec(top=1, seeds=1), pace=Pace(1, 2, "x"))
    keep_plan(plan, tmp_path / "budget.json")
    assert kept_plan(tmp_path / "budget.json") == plan
    assert kept_plan(tmp_path / "none.json") is None


def made(folder: Path, **changes: Any) -> Search:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(to_json(tiny_recipe(folder)))))
    values = {"name": "s", "recipe": "recipe.yaml", "space": {"adapter.r": {"choice": [2, 4]}}, **changes}
    return load_search(validate(SweepSpec, values, "s.yaml"), folder / "s.yaml")


def earlier_run(folder: Path, search: Search, tokens_per_second: float, **changes: Any) -> None:
    """Ten steps of 100 tokens; the first one ended 20 s after the start."""
    spec = with_absolute_paths(search.base())
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(to_json(spec))
    write_json(folder / "provenance.jsonl", {})
    attempt = {"time": "2026-01-01T00:00:00+0000", "processor": processor(), **changes}
    (folder / "provenance.jsonl").write_text(json.dumps(attempt) + "\n")
    step, begun = 100 / tokens_per_second, 1767225600.0
    lines = [
        {
            "step": n + 1,
            "time_ms": round(1000 * (begun + 20 + n * step)),
            "attempt": 1,
            "metrics": {"train/tokens": 100.0},
        }
        for n in range(10)
    ]
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_pace_is_that_of_earlier_runs_of_the_same_kind(tmp_path: Path) -> None:
    search = made(tmp_path)
    assert pace_of_earlier_runs(search.base(), tmp_path / "runs") is None
    earlier_run(tmp_path / "runs" / "a", search, 50.0)
    earlier_run(tmp_path / "runs" / "sweep" / "trials" / "b", search, 150.0)
    earlier_run(tmp_path / "runs" / "other", search, 1e6, processor="another one")
    found = pace_of_earlier_runs(search.base(), tmp_path / "runs")
    assert found is not None and found.source == "2 earlier runs of this base"
    assert found.tokens_per_second == pytest.approx(100, rel=0.01)
    assert found.start_seconds == pytest.approx(20 - (2 + 2 / 3) / 2, abs=0.1)
    another = search.base().model_copy(update={"adapter": replace_rank(search)})
    assert pace_of_earlier_runs(another, tmp_path / "runs") is not None, "the rank is what is searched"
    larger = search.base()
    larger = larger.model_copy(update={"training": larger.training.model_copy(update={"global_batch_size": 16})})
    assert pace_of_earlier_runs(larger, tmp_path / "runs") is None


def replace_rank(search: Search) -> Any:
    return search.base().adapter.model_copy(update={"r": 64})


def test_a_search_file_becomes_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DIDACT_PRICE_PER_HOUR", raising=False)
    search = made(tmp_path, budget="$2", price_per_hour=4.0, max_concurrent=1, num_trials=99)
    earlier_run(tmp_path / "runs" / "a", search, 100.0)
    prepared = prepare_data(search.longest())

    def planned(**changes: Any) -> BudgetPlan:
        sweep = search.sweep.model_copy(update=changes)
        return plan_budget(replace(search, sweep=sweep), search.longest(), prepared, tmp_path / "runs")

    plan = planned()
    assert plan.amount == 1800 and plan.prices.unit == "seconds" and plan.pace is not None
    tokens = plan.pace.tokens_per_second * (plan.prices.full - plan.pace.start_seconds)
    assert plan.search_cost + plan.confirm_cost <= 1800 and plan.prices.compared == 1
    assert planned(budget=f"{10 * tokens + 1:.0f} tokens", confirm=None).trials == 10
    applied = plan.applied(search.sweep)
    assert applied.num_trials == plan.trials != 99 and (applied.scheduler is None) == (not plan.rungs)
    with pytest.raises(SpecError, match=r"s\.yaml: budget: found '\$2', but no price; set price_per_hour"):
        planned(price_per_hour=None)
    monkeypatch.setenv("DIDACT_PRICE_PER_HOUR", "4")
    assert planned(price_per_hour=None) == plan
    with pytest.raises(SpecError, match=r"s\.yaml: budget: found '3s' \(3s\), but one trial of 10 steps takes about"):
        planned(budget="3s")
    grid = made(tmp_path, budget="2h", space={"adapter.r": {"grid": [2, 4]}})
    with pytest.raises(SpecError, match=r"s\.yaml: budget: a grid is tried in full"):
        plan_budget(grid, search.longest(), prepared, tmp_path / "runs")
