"""Median stopping on values that are counted by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from ray.tune.schedulers import TrialScheduler

from didact.errors import SpecError
from didact.spec import FinetuneSpec, SweepSpec, to_json, validate
from didact.spec.search.schedulers import HalvingSpec, MedianSpec
from didact.spec.search.sweep import GoalSpec
from didact.tracking import JsonLinesTracker
from didact.tuning.objective import Objective
from didact.tuning.schedulers import Median, build_scheduler, rungs_of, words_of

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
SWEEP = {"name": "s", "recipe": "r.yaml", "space": {"adapter.dropout": {"uniform": [0, 0.5]}}}
OTHERS = {"a": (3.0, 1.0), "b": (5.0, 3.0), "c": (9.0, 7.0)}
"""Losses at steps 2 and 4; their means up to step 4 are 2, 4 and 8, whose median is 4."""


def rule(folder: Path, mode: str = "min", **changes: object) -> Median:
    spec = MedianSpec(rule="median", **{"grace_steps": 2, **changes})  # type: ignore[arg-type]
    built = build_scheduler(spec, Objective((GoalSpec(metric="eval/loss"),)), folder, 8)
    assert isinstance(built, Median)
    built.set_search_properties("eval/loss", mode)
    return built


def told(median: Median, name: str, step: int, loss: float, tokens: float = 0.0) -> str:
    result = {"step": step, "num_steps": 8, "tokens": tokens, "eval/loss": loss}
    return median.on_trial_result(None, SimpleNamespace(trial_id=name), result)


def others(median: Median, mode: str = "min") -> None:
    for name, (first, second) in OTHERS.items():
        median.on_trial_add(None, SimpleNamespace(trial_id=name))
        assert told(median, name, 2, first) == GO_ON
        assert told(median, name, 4, second) == GO_ON, "two others are too few"
    median.on_trial_add(None, SimpleNamespace(trial_id="new"))


@pytest.mark.parametrize(("mode", "kept", "stopped"), [("min", 4.0, 4.1), ("max", 4.0, 3.9)])
def test_a_best_that_is_worse_than_the_median_of_means_ends_a_trial(
    tmp_path: Path, mode: str, kept: float, stopped: float
) -> None:
    for value, decision in ((kept, GO_ON), (stopped, STOP)):
        median = rule(tmp_path, mode)
        others(median)
        assert told(median, "new", 4, value) == decision


def test_its_best_counts_and_not_its_newest_value(tmp_path: Path) -> None:
    median = rule(tmp_path)
    others(median)
    assert told(median, "new", 2, 3.5) == GO_ON and told(median, "new", 4, 90.0) == GO_ON


def test_nothing_ends_before_its_time_nor_at_its_last_step(tmp_path: Path) -> None:
    median = rule(tmp_path, grace_steps=3)
    others(median)
    assert told(median, "new", 2, 90.0) == GO_ON
    assert told(median, "new", 4, 90.0) == STOP and told(median, "new", 5, 0.0) == STOP, "what comes later is too late"
    late = rule(tmp_path)
    for name in OTHERS:
        late.on_trial_add(None, SimpleNamespace(trial_id=name))
        assert told(late, name, 8, 1.0) == GO_ON
    late.on_trial_add(None, SimpleNamespace(trial_id="new"))
    assert told(late, "new", 8, 90.0) == GO_ON, "only its adapter remains to be written"


def test_what_a_trial_measures_again_after_a_kill_counts_once(tmp_path: Path) -> None:
    median = rule(tmp_path)
    others(median)
    assert told(median, "b", 2, 5.0) == GO_ON, "its worker came back behind step 2"
    assert told(median, "new", 4, 4.1) == STOP, "the median is still that of all three means"


def test_time_in_tokens(tmp_path: Path) -> None:
    median = rule(tmp_path, grace_steps=None, grace_tokens=400)
    for name in OTHERS:
        median.on_trial_add(None, SimpleNamespace(trial_id=name))
        told(median, name, 4, 1.0, tokens=400.0)
    median.on_trial_add(None, SimpleNamespace(trial_id="new"))
    assert told(median, "new", 4, 9.0, tokens=200.0) == GO_ON, "half of the batch"
    assert told(median, "new", 6, 9.0, tokens=300.0) == GO_ON
    assert told(median, "new", 7, 9.0, tokens=400.0) == STOP


def test_a_continued_sweep_judges_by_what_run_folders_hold(tmp_path: Path) -> None:
    recipe = {"data": {"sources": [{"name": "sums", "path": "reasoning-gym:chain_sum"}]}, "training": {"steps": 8}}
    for name, losses in {**OTHERS, "lost": (9.0, 99.0)}.items():
        folder = tmp_path / f"s-{name}"
        folder.mkdir()
        (folder / "recipe.json").write_text(to_json(validate(FinetuneSpec, {**recipe, "name": f"s-{name}"}, "r")))
        tracker = JsonLinesTracker(folder / "steps.jsonl", attempt=1)
        for step, loss in zip((2, 4), losses, strict=True):
            tracker.log(step, {"train/tokens": 50.0, "eval/loss": loss})
    median = cloudpickle.loads(cloudpickle.dumps(rule(tmp_path)))
    median.on_trial_add(None, SimpleNamespace(trial_id="new"))
    assert told(median, "new", 4, 4.1) == STOP
    median.on_trial_add(None, SimpleNamespace(trial_id="lost"))
    assert told(median, "lost", 6, 0.0) == STOP, "it was to be stopped at step 2 when the driver was killed"
    again = rule(tmp_path, grace_steps=None, grace_tokens=100)
    again.on_trial_add(None, SimpleNamespace(trial_id="new"))
    # The record of "lost" at its 100 tokens counts among the others: means 1, 3, 7 and 99, whose median is 5.
    assert told(again, "new", 4, 5.0, tokens=100.0) == GO_ON and told(again, "new", 5, 5.0, tokens=100.0) == GO_ON
    worse = rule(tmp_path, grace_steps=None, grace_tokens=100)
    worse.on_trial_add(None, SimpleNamespace(trial_id="new"))
    assert told(worse, "new", 4, 5.1, tokens=100.0) == STOP


def test_what_a_file_may_say_of_early_stopping() -> None:
    stopped = validate(SweepSpec, {**SWEEP, "scheduler": {"rule": "median"}}, "s.yaml").scheduler
    assert stopped == MedianSpec(rule="median", grace_steps=10, min_trials=3)
    assert validate(SweepSpec, {**SWEEP, "scheduler": {"grace_tokens": 900}}, "s.yaml").scheduler == HalvingSpec(
        grace_tokens=900
    )
    assert validate(SweepSpec, SWEEP, "s.yaml").scheduler == HalvingSpec(grace_steps=10)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"grace_steps": 2, "grace_tokens": 9}, "scheduler: give grace_steps or grace_tokens, one of both"),
        (
            {"rule": "median", "reduction_factor": 2},
            r"scheduler.reduction_factor: unknown key; known here: .*min_trials",
        ),
        ({"rule": "middle"}, "scheduler.rule: found 'middle'; expected 'halving', 'median' or 'population'"),
        ({"min_trials": 2}, r"scheduler.min_trials: unknown key; known here: .*reduction_factor"),
    ],
)
def test_what_no_rule_has_is_refused(scheduler: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        validate(SweepSpec, {**SWEEP, "scheduler": scheduler}, "s.yaml")


def test_rungs_that_follow_from_a_budget_are_not_in_tokens() -> None:
    with pytest.raises(SpecError, match=r"scheduler\.grace_tokens has no effect: with a budget"):
        validate(SweepSpec, {**SWEEP, "budget": "1h", "scheduler": {"grace_tokens": 9}}, "s.yaml")


def test_words_and_rungs() -> None:
    median, tokens = MedianSpec(rule="median", grace_steps=4), HalvingSpec(grace_tokens=1000, brackets=2)
    assert rungs_of(median, 90) == () and rungs_of(tokens, 4000) == (1000, 2000) and rungs_of(None, 9) == ()
    assert words_of(median, 90).startswith("from step 4 on, trials whose best is worse than the median of 3 or more")
    said = "of the trials that come to token 1,000, 2,000, one in 2 goes on each time, in 2 brackets"
    assert words_of(tokens, 4000) == said
    assert words_of(tokens, 1000).startswith("no trial can be stopped early: each gets 1,000 tokens")
    assert words_of(None, 9) == "every trial runs to its end"
