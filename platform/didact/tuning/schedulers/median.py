"""Median stopping: trials that lag behind the middle of the others are stopped."""

import math
from pathlib import Path
from typing import Any, Literal

from ray.tune.schedulers import MedianStoppingRule
from typing_extensions import override

from didact.tuning.objective import Objective
from didact.tuning.schedulers.recalled import Recalled


class Median(Recalled, MedianStoppingRule):
    """The rule of Google's Vizier (Golovin et al., 2017) by Ray, whose decisions survive interruptions."""

    def __init__(
        self,
        *,
        objective: Objective,
        trials_dir: Path,
        grace: int,
        min_trials: int,
        unit: Literal["step", "tokens"] = "step",
    ) -> None:
        """Stop a trial whose best value is worse than the median of the others' means up to the same time.

        Args:
            objective: its first goal decides.
            trials_dir: where trials' run folders lie.
            grace: time before which nothing is stopped and which means leave out, in `unit`.
            min_trials: others that must have come as far.
            unit: of time.
        """
        super().__init__(
            objective=objective,
            trials_dir=trials_dir,
            time_attr=unit,
            grace_period=grace,
            min_samples_required=min_trials,
            # Ray would pause a trial to let others come as far; ours would be killed in the middle of a step.
            min_time_slice=math.inf,
        )

    @override
    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: Ray would count the last value a second time, which no recalled trial's is."""
