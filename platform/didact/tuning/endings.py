"""When a search ends before it has all its trials: the budget is spent, or nothing gets better any more."""

from collections.abc import Callable, Sequence
from typing import Literal

from didact.tuning.budget import Ledger
from didact.tuning.journal import Entry
from didact.tuning.records import TrialResult, read_trial
from didact.tuning.results import rank
from didact.tuning.trial import TrialPlan


def ending(plan: TrialPlan, ledger: Ledger | None) -> Callable[[list[Entry]], str | None] | None:
    """What says, after some trials, why no other one may begin; None where nothing ends the search early.

    Args:
        plan: of the sweep.
        ledger: of its budget.
    """
    sweep, mode = plan.search.sweep, plan.search.objective.goals[0].mode
    if ledger is None and sweep.patience is None:
        return None

    def why(entries: list[Entry]) -> str | None:
        trials = [read_trial(plan, entry) for entry in entries]
        if ledger is not None:
            ledger.alive()
            if not ledger.may_begin(trials):
                return f"budget {ledger.plan.written} has room for no other trial"
        return without_gain(trials, mode, sweep.patience) if sweep.patience else None

    return why


def without_gain(trials: Sequence[TrialResult], mode: Literal["min", "max"], patience: int) -> str | None:
    """That the last `patience` trials to be drawn, all of which have ended, were no better than the best before them.

    A trial that was stopped early is no better than one that has finished. Failed ones say nothing.

    Args:
        trials: in any order.
        mode: whether less or more of the metric is better.
        patience: as many trials.
    """
    if any(not trial.ended and not trial.error for trial in trials):
        return None
    ended = [trial for trial in trials if trial.ended and trial.metric is not None]
    if not ended:
        return None
    best = rank(ended, mode)[0]
    later = sum(trial.index > best.index for trial in ended)
    return f"{later} trials after {best.name} were no better (patience)" if later >= patience else None
