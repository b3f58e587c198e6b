"""Successive halving: trials that lag at a rung are stopped."""

import sys
from pathlib import Path
from typing import Any, Literal

from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from typing_extensions import override

from didact.spec.search.sweep import GoalSpec
from didact.tuning.journal import Journal
from didact.tuning.objective import Objective
from didact.tuning.schedulers.recalled import Recalled


class _JudgedAgain(ASHAScheduler):
    """Ray judges a trial by those that were at a rung before it: of trials that take their steps together the first
    goes on in any case, however badly it did. Here it is judged at its highest rung again, whenever it has measured."""

    _together = False

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if not self._together or decision != TrialScheduler.CONTINUE:
            return decision
        bracket = self._trial_info[trial.trial_id]
        for _, recorded in bracket._rungs:  # the highest first
            if trial.trial_id in recorded:
                lags = recorded[trial.trial_id] < bracket.cutoff(recorded)
                return str(TrialScheduler.STOP if lags else TrialScheduler.CONTINUE)
        return decision


class Halving(Recalled, _JudgedAgain):
    """Asynchronous successive halving (Li et al., 2018) or Hyperband by Ray, whose decisions survive interruptions."""

    def __init__(
        self,
        *,
        objective: Objective,
        trials_dir: Path,
        grace: int,
        reduction_factor: float,
        max_steps: int | None = None,
        unit: Literal["step", "tokens"] = "step",
        brackets: int = 1,
        together: bool = False,
    ) -> None:
        """Stop all but one of `reduction_factor` trials at `grace` and at each multiple of it by `reduction_factor`.

        Args:
            objective: its first goal decides.
            trials_dir: where trials' run folders lie.
            grace: first rung, in `unit`.
            reduction_factor: one of so many trials survives a rung.
            max_steps: of the longest trial; None where time is counted in tokens, of which no trial knows its number.
            unit: of time.
            brackets: of Hyperband; 1 for halving alone.
            together: trials take their steps together, so whoever came first to a rung is judged by the others too.
                Where each goes at its own pace, that would depend on who happens to be where: on interruptions.
        """
        longest = sys.maxsize if max_steps is None else max(max_steps, grace) + 1
        # Ray cannot make a bracket whose first rung lies beyond the end.
        while brackets > 1 and grace * reduction_factor ** (brackets - 1) >= longest:
            brackets -= 1
        super().__init__(
            objective=objective,
            trials_dir=trials_dir,
            time_attr=unit,
            max_t=longest,
            grace_period=grace,
            reduction_factor=reduction_factor,
            brackets=brackets,
        )
        self._together = together

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Tune pickles schedulers; those of earlier versions held the name of one metric."""
        if "_reported" in state:
            state = {**state, "_objective": Objective((GoalSpec(metric=state["_reported"]),))}
        super().__setstate__(state)

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if len(self._brackets) > 1:  # Ray draws the bracket from a generator that a kill would set back
            self._trial_info[trial.trial_id] = self._brackets[self._number(trial.trial_id) % len(self._brackets)]

    def _number(self, trial_id: str) -> int:
        entry = Journal(self._trials_dir.parent / "journal").find(trial_id)
        return int(entry.sample.get("draw", {}).get("index", 0)) if entry else 0
