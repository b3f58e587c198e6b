"""When a search ends before it has all its trials."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import cloudpickle
from ray.tune.search import Searcher

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.tracking import JsonLinesTracker
from didact.tuning import TrialResult, load_search
from didact.tuning.budget import Ledger, Prices, spread
from didact.tuning.endings import ending, without_gain
from didact.tuning.journal import Entry, Journal, JournalKeeper
from didact.tuning.proposals import Proposals
from didact.tuning.searchers import Draw, RandomProposer, Seen
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
    assert without_gain([*trials, trial(3, None, ended=False)], "min", 1) is None
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


def test_a_grid_has_no_patience() -> None:
    grid = {**SWEEP, "space": {"adapter.r": {"grid": [1, 2]}}, "patience": 3}
    with pytest.raises(SpecError, match="a grid is always tried in full; remove patience"):
        validate(SweepSpec, grid, "s.yaml")
