import json
from pathlib import Path

from rich.console import Console

from didact.tuning import SweepResult, TrialResult
from didact.tuning.results import rank


def trial(name: str, metric: float | None, status: str = "finished", error: str | None = None) -> TrialResult:
    values = {"adapter.r": 8, "adapter.target_modules": "q|v", "data.sources.sums.weight": 0.123456}
    return TrialResult(name, values, metric, 10, status, Path("/runs/s/trials") / name, error)  # type: ignore[arg-type]


def sweep(*trials: TrialResult) -> SweepResult:
    ordered = rank(list(trials), "min")
    return SweepResult("s", "eval/loss", "min", ordered, ordered[0])


TRIALS = (
    trial("s-failed", None, "failed", "no room | for it"),
    trial("s-stopped", 0.5, "stopped early"),
    trial("s-worse", 2.0),
    trial("s-nan", float("nan")),
    trial("s-best", 1.0),
)


def test_finished_trials_come_first_and_best_first() -> None:
    names = [each.name for each in rank(list(TRIALS), "min")]
    assert names == ["s-best", "s-worse", "s-nan", "s-stopped", "s-failed"]
    assert rank(list(TRIALS), "max")[0].name == "s-worse"


def test_markdown_has_a_row_a_trial_and_says_what_was_best() -> None:
    text = sweep(*TRIALS).markdown()
    assert "| trial | r | target_modules | sums weight | eval/loss | steps | status |" in text
    assert r"| s-best | 8 | q\|v | 0.1235 | 1 | 10 | finished |" in text
    assert "Best eval/loss (min): s-best." in text
    assert "s-failed failed: no room | for it" in text


def test_table_shows_every_trial() -> None:
    console = Console(width=120, record=True)
    console.print(sweep(*TRIALS).table())
    shown = console.export_text()
    assert all(each.name in shown for each in TRIALS)


def test_saved_results_are_read_back(tmp_path: Path) -> None:
    sweep(*TRIALS[1:3]).save(tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["best"] == "s-worse"
    assert [(each["name"], each["metric"], each["status"]) for each in saved["trials"]] == [
        ("s-worse", 2.0, "finished"),
        ("s-stopped", 0.5, "stopped early"),
    ]
    assert (tmp_path / "results.md").read_text() == sweep(*TRIALS[1:3]).markdown()
