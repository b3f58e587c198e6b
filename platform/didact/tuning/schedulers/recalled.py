"""What Ray's schedulers lack: decisions that an interruption does not change."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from typing_extensions import override

from didact.runs import open_run
from didact.tracking import effective_records
from didact.tuning.objective import Objective


@dataclass(frozen=True, slots=True)
class _Known:
    """A trial as rules know it, whether Tune has it in this process or not."""

    trial_id: str


class Recalled(FIFOScheduler):
    """Put before one of Ray's schedulers: after an interruption it decides again.

    It judges all values that the run folders hold, in the order in which they were measured; Ray's own state leaves
    that out. So a trial whose value was written when the driver was killed is judged by what was known then, and one
    that was to be stopped is stopped when it next reports. A trial at its last step is let finish, for only its adapter
    remains to be written.
    """

    def __init__(self, *, objective: Objective, trials_dir: Path, **options: Any) -> None:
        """Nothing is recalled before the first trial.

        Args:
            objective: its first goal decides.
            trials_dir: where trials' run folders lie.
            options: of Ray's scheduler.
        """
        super().__init__(**options)
        self._objective, self._trials_dir, self._recalled = objective, trials_dir, False
        self._stopped: set[str] = set()
        self._judged: dict[str, int] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Tune pickles schedulers; those of earlier versions did not know what they had judged."""
        self.__dict__.update({"_stopped": set(), "_judged": {}, **state})

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if not self._recalled:
            self._recalled = True
            self._recall(tune_controller)
        super().on_trial_add(tune_controller, _Known(trial.trial_id))

    @override
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        is_last = result["step"] >= result["num_steps"]
        if trial.trial_id in self._stopped:
            return TrialScheduler.CONTINUE if is_last else TrialScheduler.STOP
        # A trial that came back measures again what it had measured behind its checkpoint; it counts once.
        if result["step"] <= self._judged.get(trial.trial_id, 0):
            return TrialScheduler.CONTINUE
        self._judged[trial.trial_id] = result["step"]
        decision = super().on_trial_result(tune_controller, _Known(trial.trial_id), result)
        if decision == TrialScheduler.STOP:
            self._stopped.add(trial.trial_id)
        return TrialScheduler.CONTINUE if is_last else str(decision)

    def _recall(self, tune_controller: Any) -> None:
        known: set[str] = set()
        for _, trial_id, result in sorted(_past_results(self._trials_dir, self._objective), key=lambda each: each[:2]):
            if trial_id not in known:
                known.add(trial_id)
                self.on_trial_add(tune_controller, _Known(trial_id))
            # What workers measured after the decision, before they were ended, counts for nothing.
            if trial_id not in self._stopped:
                self.on_trial_result(tune_controller, _Known(trial_id), result)


def _past_results(trials_dir: Path, objective: Objective) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Time in ms, trial and result of each measurement."""
    for recipe in trials_dir.glob("*/recipe.json"):
        run = open_run(recipe.parent)
        records = effective_records(run.steps)
        num_steps = run.spec().training.steps or math.inf
        tokens = 0.0
        for record in records:
            tokens += record.metrics.get("train/tokens", 0.0)
            if (value := objective.value(record.metrics)) is not None:
                result = {"step": record.step, "num_steps": num_steps, "tokens": tokens, objective.name: value}
                yield record.time_ms, run.name.rpartition("-")[2], result
