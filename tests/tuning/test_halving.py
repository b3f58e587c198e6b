from pathlib import Path
from types import SimpleNamespace

from ray.tune.schedulers import TrialScheduler

from didact.files import write_json
from didact.spec import FinetuneSpec, to_json, validate
from didact.spec.search.sweep import GoalSpec
from didact.tracking import JsonLinesTracker
from didact.tuning import halving as earlier
from didact.tuning.journal import Journal
from didact.tuning.objective import Objective
from didact.tuning.schedulers import Halving

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def scheduler(trials_dir: Path, *, together: bool = False) -> Halving:
    built = Halving(
        objective=Objective((GoalSpec(metric="eval/loss"),)),
        trials_dir=trials_dir,
        max_steps=8,
        grace=2,
        reduction_factor=2,
        together=together,
    )
    built.set_search_properties("eval/loss", "min")
    return built


def report(halving: Halving, trial_id: str, step: int, loss: float) -> str:
    trial = SimpleNamespace(trial_id=trial_id)
    if step == 2:
        halving.on_trial_add(None, trial)
    return halving.on_trial_result(None, trial, {"step": step, "num_steps": 8, "eval/loss": loss})


def past_run(trials_dir: Path, name: str, losses: dict[int, float]) -> None:
    sources = [{"name": "sums", "path": "reasoning-gym:chain_sum"}]
    values = {"name": name, "data": {"sources": sources}, "training": {"steps": 8}}
    write_json(trials_dir / name / "recipe.json", {})
    (trials_dir / name / "recipe.json").write_text(to_json(validate(FinetuneSpec, values, "test")))
    tracker = JsonLinesTracker(trials_dir / name / "steps.jsonl", attempt=1)
    for step in range(1, max(losses) + 1):
        metrics = {"train/loss": 9.0}
        tracker.log(step, {**metrics, "eval/loss": losses[step]} if step in losses else metrics)


def test_laggard_is_stopped_at_a_rung_and_not_before(tmp_path: Path) -> None:
    halving = scheduler(tmp_path)
    assert report(halving, "good", 2, 1.0) == GO_ON
    halving.on_trial_add(None, SimpleNamespace(trial_id="bad"))
    early = {"step": 1, "num_steps": 8, "eval/loss": 5.0}
    assert halving.on_trial_result(None, SimpleNamespace(trial_id="bad"), early) == GO_ON
    assert halving.on_trial_result(None, SimpleNamespace(trial_id="bad"), {**early, "step": 2}) == STOP


def test_of_trials_together_who_came_first_is_judged_by_those_who_came_after(tmp_path: Path) -> None:
    halving = scheduler(tmp_path, together=True)
    losses = {"worst": 4.0, "worse": 3.0, "good": 2.0, "best": 1.0}  # each better than all before it
    assert [report(halving, name, 2, loss) for name, loss in losses.items()] == [GO_ON] * 4
    decided = {name: report(halving, name, 3, loss) for name, loss in losses.items()}
    assert decided == {"worst": STOP, "worse": STOP, "good": GO_ON, "best": GO_ON}
    assert [report(halving, name, 4, losses[name]) for name in ("good", "best")] == [GO_ON, GO_ON]
    assert report(halving, "late", 2, 0.5) == GO_ON
    assert report(halving, "best", 5, 1.0) == GO_ON, "at its highest rung it is the best"
    assert report(halving, "good", 5, 2.0) == STOP


def test_trial_at_its_last_step_may_finish(tmp_path: Path) -> None:
    halving = scheduler(tmp_path)
    for step in (2, 4, 8):
        assert report(halving, "good", step, 1.0) == GO_ON
    for step in (2, 4):
        assert report(halving, "late", step, 0.5) == GO_ON
    assert report(halving, "late", 8, 7.0) == GO_ON, "step 8 is a rung, but stopping there would save nothing"


def test_continued_sweep_remembers_earlier_trials(tmp_path: Path) -> None:
    past_run(tmp_path, "sweep-with-dashes-0a_00000", {2: 1.0, 4: 0.9, 8: 0.8})
    past_run(tmp_path, "sweep-with-dashes-0a_00001", {2: 1.1})
    assert report(scheduler(tmp_path), "new", 2, 5.0) == STOP
    assert report(scheduler(tmp_path / "elsewhere"), "new", 2, 5.0) == GO_ON


def test_continued_trial_is_not_judged_twice_at_one_rung(tmp_path: Path) -> None:
    past_run(tmp_path, "s-a", {2: 1.0})
    past_run(tmp_path, "s-b", {2: 0.9})
    assert report(scheduler(tmp_path), "b", 2, 5.0) == GO_ON


def test_what_was_decided_before_a_kill_is_decided_again(tmp_path: Path) -> None:
    past_run(tmp_path, "s-b", {2: 1.1})
    past_run(tmp_path, "s-a", {2: 1.2, 4: 0.1})
    halving = scheduler(tmp_path)
    halving.on_trial_add(None, SimpleNamespace(trial_id="b"))
    resumed = {"step": 4, "num_steps": 8, "eval/loss": 0.2}
    assert halving.on_trial_result(None, SimpleNamespace(trial_id="b"), resumed) == GO_ON, "was the first at step 2"
    halving.on_trial_add(None, SimpleNamespace(trial_id="a"))
    assert halving.on_trial_result(None, SimpleNamespace(trial_id="a"), {**resumed, "eval/loss": 0.0}) == STOP
    assert halving.on_trial_result(None, SimpleNamespace(trial_id="a"), {**resumed, "step": 8}) == GO_ON, "has ended"


def test_time_in_tokens_is_fair_to_small_batches(tmp_path: Path) -> None:
    halving = Halving(
        objective=Objective((GoalSpec(metric="eval/loss"),)),
        trials_dir=tmp_path,
        grace=200,
        reduction_factor=2,
        unit="tokens",
    )
    halving.set_search_properties("eval/loss", "min")

    def told(trial_id: str, step: int, tokens: float, loss: float) -> str:
        result = {"step": step, "num_steps": 99, "tokens": tokens, "eval/loss": loss}
        return halving.on_trial_result(None, SimpleNamespace(trial_id=trial_id), result)

    for name in ("large", "small"):
        halving.on_trial_add(None, SimpleNamespace(trial_id=name))
    assert told("large", 2, 200, 1.0) == GO_ON
    assert told("small", 2, 100, 5.0) == GO_ON, "as many steps, but half of the tokens"
    assert told("small", 4, 200, 0.5) == GO_ON
    assert told("large", 4, 400, 0.9) == GO_ON and told("small", 8, 400, 1.5) == STOP


def test_brackets_are_taken_in_turn_by_the_numbers_of_draws(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(4):
        journal.begin(f"{number}", {"draw": {"index": number}})
    halving = Halving(
        objective=Objective((GoalSpec(metric="eval/loss"),)),
        trials_dir=tmp_path / "trials",
        grace=2,
        reduction_factor=2,
        max_steps=8,
        brackets=2,
    )
    halving.set_search_properties("eval/loss", "min")
    for number in (2, 0, 1):
        assert report(halving, f"{number}", 2, 1.0 + number % 2) == GO_ON
    assert report(halving, "3", 2, 9.0) == GO_ON, "the second bracket has no rung there"
    trial = SimpleNamespace(trial_id="1")
    assert halving.on_trial_result(None, trial, {"step": 4, "num_steps": 8, "eval/loss": 1.0}) == GO_ON
    trial = SimpleNamespace(trial_id="3")
    assert halving.on_trial_result(None, trial, {"step": 4, "num_steps": 8, "eval/loss": 9.0}) == STOP
    short = Halving(
        objective=Objective((GoalSpec(metric="eval/loss"),)),
        trials_dir=tmp_path,
        grace=4,
        reduction_factor=2,
        max_steps=8,
        brackets=5,
    )
    assert len(short._brackets) == 2, "a third one would begin after the end"


def test_a_scheduler_that_an_earlier_version_pickled_goes_on(tmp_path: Path) -> None:
    halving = scheduler(tmp_path)
    state = {key: value for key, value in vars(halving).items() if key != "_objective"}
    old = Halving.__new__(Halving)
    old.__setstate__({**state, "_reported": "eval/loss"})
    past_run(tmp_path, "s-a", {2: 1.0})
    assert report(old, "new", 2, 5.0) == STOP
    assert earlier.Halving is Halving, "pickles name the class by where it was"
