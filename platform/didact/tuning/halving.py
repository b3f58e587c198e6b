"""Early stopping of trials that lag."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from didact.runs import open_run
from didact.spec.search.sweep import GoalSpec
from didact.tracking import effective_records
from didact.tuning.objective import Objective


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al., 2018) by Ray, with two additions.

    After an interruption it decides again, in the order in which they were measured, on all values that the run folders
    hold; Ray's own state leaves that out. So a trial whose value was written when the driver was killed is judged by
    what was known then, and one that was to be stopped is stopped when it next reports. And a trial at its last step is
    let finish, for only its adapter remains to be written.
    """

    def __init__(
        self, *, objective: Objective, trials_dir: Path, max_steps: int, grace_steps: int, reduction_factor: float
    ) -> None:
        """Stop one of `reduction_factor` trials at `grace_steps` and at each multiple of it by `reduction_factor`."""
        super().__init__(
            time_attr="step",
            max_t=max(max_steps, grace_steps) + 1,
            grace_period=grace_steps,
            reduction_factor=reduction_factor,
        )
        self._objective, self._trials_dir, self._recalled = objective, trials_dir, False
        self._stopped: set[str] = set()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Tune pickles schedulers; those of earlier versions held the name of one metric."""
        if "_reported" in state:
            state = {**state, "_objective": Objective((GoalSpec(metric=state["_reported"]),))}
        self.__dict__.update({"_stopped": set(), **state})

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Before the first trial of this process, recall those of earlier ones."""
        if not self._recalled:
            self._recalled = True
            self._recall(tune_controller)
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        if trial.trial_id in self._stopped and result["step"] < result["num_steps"]:
            return TrialScheduler.STOP
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if result["step"] >= result["num_steps"] else decision

    def _recall(self, tune_controller: Any) -> None:
        known: set[str] = set()
        for _, trial_id, result in sorted(_past_results(self._trials_dir, self._objective), key=lambda each: each[:2]):
            past = SimpleNamespace(trial_id=trial_id)
            if trial_id not in known:
                known.add(trial_id)
                super().on_trial_add(tune_controller, past)
            # What workers measured after the decision, before they were ended, counts for nothing.
            if trial_id in self._stopped:
                continue
            if super().on_trial_result(tune_controller, past, result) == TrialScheduler.STOP:
                self._stopped.add(trial_id)


def _past_results(trials_dir: Path, objective: Objective) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Time in ms, trial and result of each measurement."""
    for recipe in trials_dir.glob("*/recipe.json"):
        run = open_run(recipe.parent)
        for record in effective_records(run.steps):
            if (value := objective.value(record.metrics)) is not None:
                trial_id = run.name.rpartition("-")[2]
                yield record.time_ms, trial_id, {"step": record.step, objective.name: value}
