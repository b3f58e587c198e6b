"""What is shown of a search while it runs."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from didact.display import as_text
from didact.spec import SweepSpec, validate
from didact.tracking import JsonLinesTracker
from didact.tuning import load_search
from didact.tuning.board import BoardFacts, BoardRow, PlainLines, Watcher, show_board
from didact.tuning.budget import Ledger, Prices, spread
from didact.tuning.journal import Journal
from didact.tuning.schedulers import rungs_of
from didact.tuning.trial import TrialPlan

RECIPE: dict[str, Any] = {
    "name": "demo",
    "data": {"sources": [{"name": "sums", "path": "reasoning-gym:chain_sum", "held_out_rows": 8}]},
    "training": {"steps": 8, "evaluate_every": 2},
}


def plan(folder: Path) -> TrialPlan:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    values = {"name": "s", "recipe": "recipe.yaml", "space": {"adapter.r": {"choice": [4, 8]}}, "num_trials": 4}
    spec = validate(SweepSpec, {**values, "scheduler": {"grace_steps": 2}}, "s.yaml")
    search = load_search(spec, folder / "s.yaml")
    return TrialPlan(search, folder / "trials", Journal(folder / "journal"), "sqlite:///x.db", None)


def measure(folder: Path, trial: str, losses: dict[int, float], attempt: int = 1) -> None:
    (folder / "trials" / trial).mkdir(parents=True, exist_ok=True)
    tracker = JsonLinesTracker(folder / "trials" / trial / "steps.jsonl", attempt)
    for step, loss in losses.items():
        tracker.log(step, {"train/loss": 9.0, "train/tokens": 100.0, **({"eval/loss": loss} if loss else {})})


def test_it_follows_journal_and_run_folders(tmp_path: Path) -> None:
    found = plan(tmp_path)
    watcher = Watcher(found, 4, 8)
    assert watcher.look().rows == () and watcher.look().line == "0 of 4 trials"
    found.journal.begin("0", {})
    measure(tmp_path, "s-0", {1: 0, 2: 1.5, 3: 0})
    (row,) = watcher.look().rows
    assert row == BoardRow("s-0", "running", 3, 1, 1.5)
    found.journal.begin("1", {})
    found.journal.end("0")
    found.journal.begin("2", {})
    found.journal.fail("2", "no room")
    measure(tmp_path, "s-0", {4: 1.25})
    facts = watcher.look()
    assert [(each.name, each.status, each.step, each.rung) for each in facts.rows] == [
        ("s-0", "ended", 4, 2), ("s-1", "running", 0, 0), ("s-2", "failed", 0, 0),
    ]  # fmt: skip
    assert facts.rungs == rungs_of(found.search.sweep.scheduler, 8) == (2, 4) and facts.best == facts.rows[0]
    assert facts.line.startswith("1 of 4 trials, 1 running, 1 failed, best s-0 eval/loss 1.25")
    assert facts.seconds_left is not None


def test_the_share_of_a_budget_counts_steps_done_again_once(tmp_path: Path) -> None:
    found = plan(tmp_path)
    budget = spread("1000 tokens", 1000, Prices("tokens", 200.0, 200.0), num_steps=8, every=8)
    watcher = Watcher(found, 4, 8, Ledger(tmp_path / "spent.json", budget))
    found.journal.begin("0", {})
    measure(tmp_path, "s-0", {1: 0, 2: 1.5, 3: 0})
    measure(tmp_path, "s-0", {3: 0, 4: 1.0}, attempt=2)
    facts = watcher.look()
    assert facts.share == 0.4 and facts.total == budget.trials == 5 and "40% of the budget" in facts.line


def test_time_left_follows_from_the_steps_of_this_attempt(tmp_path: Path) -> None:
    found = plan(tmp_path)
    found.journal.begin("0", {})
    measure(tmp_path, "s-0", {1: 0, 2: 1.5})  # by an earlier attempt
    watcher = Watcher(found, 4, 8)
    watcher.look()
    found.journal.end("0")
    found.journal.begin("1", {})
    rows = (BoardRow("s-0", "ended", 4, 1, 1.0), BoardRow("s-1", "running", 2, 1, 1.0))
    assert watcher._left(rows, 4, 8.0) == (2 * 4 + 2) * 2, "two trials of four steps and half of one, at 2 s a step"
    assert watcher._left(rows, 0, 8.0) is None


ROWS = tuple(BoardRow(f"s-{n:02d}", "ended", 8, 2, 2.0 - n / 10) for n in range(15))
FACTS = BoardFacts("s", "eval/loss", "min", 8, (2, 4), (*ROWS, BoardRow("s-15", "running", 3, 1, 1.9)), 20, 0.5, 120.0)


def test_the_table_shows_what_runs_then_the_best(tmp_path: Path) -> None:
    text = as_text(FACTS)
    names = re.findall(r"s-\d\d(?= +│)", text)
    assert names[:2] == ["s-15", "s-14"] and len(names) == 13 and "and 3 more" in text
    assert "best s-14 eval/loss 0.6, 50% of the budget, about 2.0 min left" in " ".join(text.split())
    assert "3/8" in text and "1/2" in text
    worst_first = replace(FACTS, mode="max")
    assert worst_first.best == ROWS[0] and as_text(worst_first).index("s-00") < as_text(worst_first).index("s-01")


def test_the_time_left_ends_where_the_best_are_run_again() -> None:
    assert replace(FACTS, confirms=True).line.endswith("about 2.0 min until the best are run again with fresh seeds")
    assert replace(FACTS, seconds_left=0.0, confirms=True).line.endswith("50% of the budget"), "nothing is left to tell"


def test_off_a_terminal_a_line_is_said_when_something_has_changed() -> None:
    said: list[str] = []
    lines = PlainLines(said.append)
    for facts in (FACTS, replace(FACTS, share=0.6), replace(FACTS, rows=(*ROWS, BoardRow("s-15", "ended", 8, 2, 0.1)))):
        lines(facts)
    assert len(said) == 2 and said[1].startswith("s: 16 of 20 trials, best s-15 eval/loss 0.1")


def test_nothing_is_left_running(tmp_path: Path, capsys: Any) -> None:
    found = plan(tmp_path)
    found.journal.begin("0", {})
    measure(tmp_path, "s-0", {2: 1.5})
    found.journal.end("0")
    with show_board(Watcher(found, 4, 8)):
        pass
    assert "s: 1 of 4 trials, best s-0 eval/loss 1.5" in capsys.readouterr().err


def test_a_live_table_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    console = Console(width=100, record=True, force_terminal=True)
    console.print(FACTS)
    assert "sweep s" in console.export_text()
