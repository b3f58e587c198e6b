"""When a search ends before it has all its trials."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from didact.errors import SpecError
from didact.spec import SweepSpec, validate
from didact.tuning import TrialResult
from didact.tuning.endings import without_gain
from didact.tuning.journal import Entry, Journal
from didact.tuning.proposals import Proposals
from didact.tuning.searchers import Draw, RandomProposer, Seen
from didact.tuning.spaces import Space

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


def test_a_grid_has_no_patience() -> None:
    grid = {**SWEEP, "space": {"adapter.r": {"grid": [1, 2]}}, "patience": 3}
    with pytest.raises(SpecError, match="a grid is always tried in full; remove patience"):
        validate(SweepSpec, grid, "s.yaml")
