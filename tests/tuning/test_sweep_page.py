import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import RunError
from didact.preparation import DataFacts, SourceFacts
from didact.runs import Run
from didact.tuning import SweepResult, TrialResult, read_results
from didact.tuning.page import SweepFacts, render_sweep, sweep_facts
from didact.tuning.page.facts import ChosenRows
from didact.tuning.results import rank


def made(folder: Path, number: int = 24, **changes: Any) -> SweepResult:
    """Trials whose metric follows the learning rate and nothing else; shares of three sources are drawn beside it."""
    rng = np.random.default_rng(5)
    trials = []
    for place in range(number):
        rate, shares = 10 ** rng.uniform(-4, -2), rng.dirichlet([1, 1, 1])
        metric = 1 + math.log10(rate / 1e-4)
        run = folder / "trials" / f"t-{place:02d}"
        run.mkdir(parents=True)
        lines = [
            {
                "step": step,
                "time_ms": step,
                "attempt": 1,
                "metrics": {"eval/loss": metric, "eval/sums/loss": metric / 2},
            }
            for step in (10, 20)
        ]
        (run / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        values = {"training.learning_rate": rate, "adapter.method": ["lora", "ia3"][place % 2]}
        values |= {f"data.sources.{name}.weight": float(share) for name, share in zip("abc", shares, strict=True)}
        costs = {"eval/loss": metric, "cost/tokens": 1000.0, "cost/seconds": 2.0}
        rungs = ((10, metric + 0.1), (20, metric))
        trials.append(TrialResult(run.name, values, metric, 20, "finished", run, metrics=costs, rungs=rungs))
    ordered = rank(trials, "min")
    return replace(SweepResult("made", "eval/loss", "min", ordered, ordered[0]), **changes)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> SweepFacts:
    return sweep_facts(made(tmp_path_factory.mktemp("sweep")))


def test_what_moves_the_metric_is_told_from_what_does_not(facts: SweepFacts) -> None:
    first, *others = facts.effects
    assert first.setting.path == "training.learning_rate"
    assert first.kind == "rank correlation" and first.value == pytest.approx(1.0) and first.p_value <= 0.002
    assert {each.setting.name for each in others} == {"method", "a weight", "b weight", "c weight"}
    assert all(each.p_value > 0.01 and abs(each.value) < 0.6 for each in others)


def test_few_trials_tell_nothing(tmp_path: Path) -> None:
    assert sweep_facts(made(tmp_path, 4)).effects == ()


def test_shares_add_up_and_settings_know_their_scale(facts: SweepFacts) -> None:
    assert all(sum(trial.weights.values()) == pytest.approx(1) for trial in facts.trials)
    scales = {each.name: (each.is_number, each.is_log) for each in facts.settings}
    assert scales["learning_rate"] == (True, True) and scales["a weight"] == (True, False)
    assert scales["method"] == (False, False)


def test_the_page_shows_every_trial_and_what_was_drawn(facts: SweepFacts) -> None:
    page = render_sweep(facts)
    headings = re.findall(r"<h2>([^<]*)</h2>", page)
    wanted = ("All trials", "What moved the metric", "As training went", "Mixtures", "Shares and the metric", "Trials")
    assert set(wanted) <= set(headings) and "Losses of each source" in headings and "Failed" not in headings
    assert page.count('<polyline class="curve') == 24 + 24, "the metric's and the source's line of each trial"
    assert all(trial.result.name in page for trial in facts.trials)
    assert "24,000" in page or "24k" in page


def test_losses_that_were_measured_once_are_points(tmp_path: Path) -> None:
    result = made(tmp_path, 6)
    for trial in result.trials:
        steps = Run(trial.run).steps
        steps.write_text(steps.read_text().splitlines(keepends=True)[-1])
    page = render_sweep(sweep_facts(result))
    losses = page.partition("Losses of each source</h2>")[2].partition("<h2>")[0]
    assert losses.count("<circle") == 6 and losses.count('class="dot best"') == 1 and "<polyline" not in losses


def test_what_the_model_expects_is_drawn_and_kept(tmp_path: Path) -> None:
    line = ((1e-4, 1.0, 0.1), (1e-3, 2.0, 0.2), (1e-2, 3.0, 9.0))
    result = made(tmp_path, 6, responses={"training.learning_rate": line})
    page = render_sweep(sweep_facts(result))
    assert page.count('class="curve model"') == 1 and page.count('class="curve bound"') == 2
    assert "two standard deviations" in page and "two standard deviations" not in render_sweep(
        sweep_facts(made(tmp_path / "x"))
    )
    framed = re.findall(r'<svg x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"[^>]*>(.*?)</svg>', page)
    assert sum(each[-1].count("curve bound") for each in framed) == 2, "bounds that leave the drawing are cut off"
    assert all(float(x) + float(wide) <= 380 and float(y) + float(high) <= 226 for x, y, wide, high, _ in framed)
    result.save(tmp_path)
    assert read_results(tmp_path).responses == result.responses


def test_rows_that_the_best_trial_did_not_choose_are_told(tmp_path: Path) -> None:
    result = made(tmp_path, 6)
    assert result.best is not None and sweep_facts(result).chosen == ()
    counts = {"rows_read": 40, "rows_rejected": 0, "rows_held_out": 0, "samples_usable": 9, "samples_truncated": 0}
    counts |= {"tokens": 90, "supervised_share": 0.5, "samples_seen": 9, "tokens_seen": 90.0, "share_of_tokens": 1.0}
    dropped = {"held_out_prompt": 2, "not_chosen:answer_loss": 29}
    source = SourceFacts(
        **{
            "name": "sums",
            "path": "sums.jsonl",
            "licence": "unknown",
            "weight": 1.0,
            "fingerprint": "f",
            "epochs": 1.0,
        },
        **counts,
        **{"rows_train": 9, "rows_dropped": dropped, "samples_rejected": {}},
    )
    DataFacts("m", "t", 20, (source,), ()).write(Run(result.best.run).data)
    facts = sweep_facts(result)
    assert facts.chosen == (ChosenRows("sums", "answer_loss", 9, 29),)
    text = " ".join(re.sub(r"<[^>]*>", " ", render_sweep(facts)).split())
    assert f"trained on by {result.best.name}" in text and "sums by answer loss: 29 left out 9" in text


def test_hostile_names_and_errors_are_shown_as_text(tmp_path: Path) -> None:
    result = made(tmp_path, 6)
    failed = replace(result.trials[0], status="failed", error="<img src=x onerror=alert(1)>", metric=None, rungs=())
    page = render_sweep(sweep_facts(replace(result, trials=(*result.trials[1:], failed), best=None)))
    assert "<img" not in page and "&lt;img src=x" in page and "No trial came to a result" in page


def test_two_goals_are_drawn_against_each_other(tmp_path: Path) -> None:
    result = made(tmp_path, 6)
    names = tuple(trial.name for trial in result.trials[:2])
    page = render_sweep(sweep_facts(replace(result, goals=("eval/loss", "cost/seconds"), front=names)))
    assert "eval/loss and cost/seconds" in page and ", ".join(names) in page


def test_results_are_read_back_and_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made(tmp_path / "made", 6, goals=("eval/loss", "cost/tokens"), front=("t-00",), findings="no signal")
    result.save(tmp_path / "made")
    assert read_results(tmp_path / "made") == result
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path))
    done = CliRunner().invoke(app, ["sweep", "report", "made"], catch_exceptions=False)
    assert done.exit_code == 0 and "t-05" in done.output
    assert (tmp_path / "made" / "results.html").read_text() == render_sweep(sweep_facts(result))


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no results of a sweep; `didact tune` writes them"):
        read_results(tmp_path)
