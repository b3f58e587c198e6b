"""When a search ends before it has all its trials."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray import cloudpickle
from ray.tune.search import Searcher
from rich.console import Console

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.spec.search.sweep import ExpectedImprovementSpec
from didact.tracking import JsonLinesTracker
from didact.tuning import TrialResult, load_search, read_results
from didact.tuning.board import BoardFacts
from didact.tuning.budget import Ledger, Prices, spread
from didact.tuning.endings import ending, without_gain, without_promise
from didact.tuning.journal import Entry, Journal, JournalKeeper
from didact.tuning.page import render_sweep, sweep_facts
from didact.tuning.proposals import Proposals
from didact.tuning.records import read_trial, seen_of
from didact.tuning.results import result_of
from didact.tuning.searchers import Draw, RandomProposer, Seen, build_proposer
from didact.tuning.spaces import Space
from didact.tuning.sweep import _remember
from didact.tuning.trial import TrialPlan
from didact.tuning.tuner import all_ended

SWEEP: dict[str, Any] = {"name": "s", "recipe": "r.yaml", "space": {"adapter.dropout": {"uniform": [0, 0.5]}}}


def trial(index: int, metric: float | None, status: str = "finished", **changes: Any) -> TrialResult:
    return TrialResult(f"s-{index}", {}, metric, 8, status, Path("r"), index=index, **changes)  # type: ignore[arg-type]


def test_nothing_better_in_a_row_ends_a_search() -> None:
    trials = [trial(0, 2.0), trial(2, 1.5), trial(1, 1.0), trial(3, 0.5, "stopped early")]
    assert without_gain(trials, "min", 2) == "2 trials after s-1 were no better (patience)"
    assert without_gain(trials, "min", 3) is None
    assert without_gain(trials, "max", 3) == "3 trials after s-0 were no better (patience)"


def test_what_runs_may_still_be_better_and_what_failed_says_nothing() -> None:
    trials = [trial(0, 1.0), trial(1, 2.0), trial(2, None, "failed", error="no room", ended=False)]
    assert without_gain(trials, "min", 2) is None and without_gain(trials, "min", 1)
    assert without_gain([*trials, trial(3, 9.0, ended=False)], "min", 2) is None, "nothing is known of its end"
    assert without_gain([*trials, trial(3, None, ended=False)], "min", 1), "the search waits for it, begins no other"
    assert without_gain([], "min", 1) is None


def test_a_search_waits_for_what_runs_and_is_closed_for_good(tmp_path: Path) -> None:
    def seen(entry: Entry) -> Seen:
        return Seen(Draw(**entry.sample["draw"]), "ended" if entry.ended else "running")

    def searched() -> Proposals:
        space = Space(validate(SweepSpec, SWEEP, "s.yaml").space)
        proposer, journal = RandomProposer(space, 0), Journal(tmp_path / "journal")
        return Proposals(
            proposer, journal, seen, str, total=9, at_once=3, enough=lambda done: "spent" if len(done) >= 2 else None
        )

    search, journal = searched(), Journal(tmp_path / "journal")
    assert search.suggest("a") and search.suggest("b")
    assert search.suggest("c") is None and journal.closed() is None, "two are still running"
    for name in "ab":
        journal.end(name)
        search.on_trial_complete(name)
    assert search.suggest("c") == Searcher.FINISHED and journal.closed() == (2, "spent")
    later = Proposals(RandomProposer(Space({}), 0), journal, seen, str, total=9, at_once=3)
    assert later.suggest("d") == Searcher.FINISHED, "also for what a continued sweep brings back"
    journal.reopen()
    assert searched().suggest("e") == Searcher.FINISHED and journal.closed() == (2, "spent")


def planned(folder: Path, **changes: Any) -> TrialPlan:
    sources = [{"name": "sums", "path": "reasoning-gym:chain_sum", "held_out_rows": 8}]
    recipe = {"name": "demo", "data": {"sources": sources}, "training": {"steps": 8, "evaluate_every": 2}}
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    search = load_search(validate(SweepSpec, {**SWEEP, **changes}, "s.yaml"), folder / "s.yaml")
    return TrialPlan(search, folder / "trials", Journal(folder / "journal"), "sqlite:///x.db", None)


def test_what_tune_brings_back_ends_a_continued_search(tmp_path: Path) -> None:
    budget = spread("300 tokens", 300, Prices("tokens", 100.0, 100.0), num_steps=8, every=8)
    ledger = Ledger(tmp_path / "spent.json", budget)
    ledger.begin(0)
    plan = planned(tmp_path, patience=5)
    proposer = RandomProposer(plan.search.space, 0)
    enough = ending(plan, ledger)
    assert enough is not None and enough([]) is None and ending(planned(tmp_path), None) is None
    made = Proposals(proposer, plan.journal, lambda entry: None, str, total=9, at_once=3, enough=enough)  # type: ignore[arg-type, return-value]
    search = cloudpickle.loads(cloudpickle.dumps(made))
    for number in range(3):
        assert search.suggest(str(number))
        plan.journal.end(str(number))
        search.on_trial_complete(str(number))
        run = plan.trials_dir / f"s-{number}" / "steps.jsonl"
        run.parent.mkdir(parents=True)
        JsonLinesTracker(run, 1).log(8, {"train/tokens": 100.0, "eval/loss": 1.0 + number})
    assert search.suggest("3") == Searcher.FINISHED
    assert plan.journal.closed() == (3, "budget 300 tokens has room for no other trial")
    keeper = cloudpickle.loads(cloudpickle.dumps(JournalKeeper(plan.journal, "eval/loss", ledger.alive)))
    keeper.on_trial_result(0, [], None, {})
    old = JournalKeeper.__new__(JournalKeeper)
    old.__setstate__({"_journal": plan.journal, "_metric": "eval/loss"})
    old.on_trial_result(0, [], None, {})


def test_a_search_without_gain_is_given_more_trials(tmp_path: Path) -> None:
    plan = planned(tmp_path, patience=1, num_trials=4)
    assert _remember(plan.search, tmp_path) == []
    for name in "ab":
        plan.journal.begin(name, {})
        plan.journal.end(name)
    plan.journal.close(2, "no gain")
    assert all_ended(4, plan.journal), "two are all that it wants"
    assert _remember(planned(tmp_path, patience=1, num_trials=9).search, tmp_path) == [2]
    assert plan.journal.closed() is None and not all_ended(9, plan.journal)


PROMISE = ExpectedImprovementSpec(below=0.01, draws=3)


def test_draws_that_promise_nothing_end_a_search() -> None:
    trials = [trial(0, 2.0, gain=0.5), trial(2, 2.5, gain=0.019), trial(1, 3.0, gain=0.001)]
    reason = without_promise(trials, "min", PROMISE, lambda: 0.0021)
    assert (
        reason == "each of 3 draws promised less than 0.01 of the best, 2: the next one 0.0021 (expected_improvement)"
    )
    assert without_promise(trials, "max", PROMISE, lambda: 0.0299), "the best is 3 there"
    assert without_promise(trials, "min", PROMISE, lambda: 0.02) is None, "as much as 1% of the best"
    assert without_promise(trials, "min", PROMISE, lambda: None) is None, "no constraint is kept yet"
    assert without_promise([], "min", PROMISE, lambda: 0.0) is None


@pytest.mark.parametrize("gain", [0.02, None])
def test_an_earlier_draw_that_promised_something_keeps_a_search_alive(gain: float | None) -> None:
    trials = [trial(0, 2.0), trial(1, 2.5, gain=gain), trial(2, 3.0, gain=0.001)]

    def never() -> float | None:
        raise AssertionError("the model is asked only where it decides")

    assert without_promise(trials, "min", PROMISE, never) is None
    assert without_promise(trials, "min", ExpectedImprovementSpec(draws=2), lambda: 0.0)


def searched_to_its_end(folder: Path, measure: Callable[[float], float], **changes: Any) -> Journal:
    """A search over one setting with `searcher: mixture`, its trials being formulas."""
    asked = {"searcher": "mixture", "num_trials": 40, "initial": 6, "expected_improvement": {"draws": 2}, **changes}
    plan = planned(folder, **asked)
    objective, space = plan.search.objective, plan.search.space
    proposer = build_proposer(plan.search.sweep, space, objective)
    search = Proposals(
        proposer,
        plan.journal,
        lambda entry: seen_of(read_trial(plan, entry), objective),
        str,
        total=40,
        at_once=1,
        enough=ending(plan, None, proposer),
    )
    for number in range(40):
        sample = search.suggest(f"{number:02d}")
        assert sample is not None
        if sample == Searcher.FINISHED:
            break
        run = plan.trials_dir / f"s-{number:02d}" / "steps.jsonl"
        run.parent.mkdir(parents=True)
        loss = measure(sample["draw"]["values"]["adapter.dropout"])
        JsonLinesTracker(run, 1).log(8, {"train/tokens": 100.0, "eval/loss": loss})
        plan.journal.end(f"{number:02d}")
        search.on_trial_complete(f"{number:02d}")
    return plan.journal


def test_a_search_whose_model_expects_no_more_says_so_and_ends(tmp_path: Path) -> None:
    journal = searched_to_its_end(tmp_path, lambda dropout: 1 + 20 * (dropout - 0.2) ** 2)
    closed = journal.closed()
    assert closed is not None and 8 <= closed[0] < 20
    assert closed[1].startswith("each of 2 draws promised less than 0.01 of the best, 1")
    assert "no signal" not in closed[1]
    best = min(abs(each.sample["draw"]["values"]["adapter.dropout"] - 0.2) for each in journal.entries())
    assert best < 0.05
    gains = [each.sample["draw"]["gain"] for each in journal.entries()]
    assert gains[0] is None and gains[-1] < 0.01


def test_a_search_without_signal_says_that(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    closed = searched_to_its_end(tmp_path, lambda _dropout: 2 + 1e-4 * float(noise.normal())).closed()
    assert closed is not None and "; no signal: left-out trials are ranked with a correlation of" in closed[1]


def test_what_the_ending_was_is_told_everywhere(tmp_path: Path) -> None:
    search = planned(tmp_path).search
    found = result_of("s", search.objective, [trial(0, 2.0)], ending="3 trials were no better (patience)")
    found.save(tmp_path)
    again = read_results(tmp_path)
    assert again.ending == found.ending and "ended since 3 trials were no better" in found.markdown()
    assert "Ended since 3 trials were no better (patience)." in render_sweep(sweep_facts(again))
    console = Console(width=200, file=io.StringIO())
    console.print(found)
    facts = BoardFacts("s", "eval/loss", "min", 8, (), (), 3, ending=found.ending)
    assert "ended since 3 trials" in console.file.getvalue()  # type: ignore[attr-defined]
    assert facts.line == "0 of 3 trials, ended since 3 trials were no better (patience)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searcher": "optuna"}, "expected_improvement is told by the model of searcher 'mixture'; found .*'optuna'"),
        (
            {"searcher": "mixture", "goals": [{"metric": "eval/loss"}, {"metric": "cost/tokens"}]},
            "expected_improvement needs a single goal; found 2",
        ),
        ({"searcher": "mixture", "expected_improvement": {"below": 0}}, "expected_improvement.below"),
    ],
)
def test_an_expectation_that_nothing_tells_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        validate(SweepSpec, {**SWEEP, "expected_improvement": {}, **changes}, "s.yaml")


def test_a_grid_has_no_patience() -> None:
    grid = {**SWEEP, "space": {"adapter.r": {"grid": [1, 2]}}, "patience": 3}
    with pytest.raises(SpecError, match="a grid is always tried in full; remove patience"):
        validate(SweepSpec, grid, "s.yaml")
