"""When a search ends before it has all its trials: the budget is spent, or nothing gets better any more."""

from collections.abc import Callable, Sequence
from typing import Literal

from didact.spec.search.sweep import ExpectedImprovementSpec
from didact.tuning.budget import Ledger
from didact.tuning.journal import Entry
from didact.tuning.proposals import next_index
from didact.tuning.records import TrialResult, read_trial, seen_of
from didact.tuning.results import rank
from didact.tuning.searchers import MixtureProposer, Proposer
from didact.tuning.trial import TrialPlan


def ending(
    plan: TrialPlan, ledger: Ledger | None, proposer: Proposer | None = None
) -> Callable[[list[Entry]], str | None] | None:
    """What says, after some trials, why no other one may begin; None where nothing ends the search early.

    Trials that still run may change the answer: it holds once none does.

    Args:
        plan: of the sweep.
        ledger: of its budget.
        proposer: of the sweep; its model tells what another trial promises.
    """
    sweep, objective = plan.search.sweep, plan.search.objective
    model = proposer if isinstance(proposer, MixtureProposer) and sweep.expected_improvement else None
    if ledger is None and sweep.patience is None and model is None:
        return None
    told: dict[str, str | None] = {}  # the model is not asked again before something has happened

    def why(entries: list[Entry]) -> str | None:
        trials = [read_trial(plan, entry, place) for place, entry in enumerate(entries)]
        if ledger is not None:
            ledger.alive()
            if not ledger.may_begin(trials):
                return f"budget {ledger.plan.written} has room for no other trial"
        reason = without_gain(trials, objective.goals[0].mode, sweep.patience) if sweep.patience else None
        if reason is not None or model is None or sweep.expected_improvement is None:
            return reason
        now = repr([(each.index, each.ended, each.error, each.metric) for each in trials])
        if now not in told:
            told.clear()
            told[now] = _nothing_expected(model, plan, trials, next_index(entries))
        return told[now]

    return why


def without_gain(trials: Sequence[TrialResult], mode: Literal["min", "max"], patience: int) -> str | None:
    """That the last `patience` trials to be drawn, of those that have ended, were no better than the best before them.

    A trial that was stopped early is no better than one that has finished. Failed ones say nothing.

    Args:
        trials: in any order.
        mode: whether less or more of the metric is better.
        patience: as many trials.
    """
    ended = [trial for trial in trials if trial.ended and trial.metric is not None]
    if not ended:
        return None
    best = rank(ended, mode)[0]
    later = sum(trial.index > best.index for trial in ended)
    return f"{later} trials after {best.name} were no better (patience)" if later >= patience else None


def without_promise(
    trials: Sequence[TrialResult],
    mode: Literal["min", "max"],
    asked: ExpectedImprovementSpec,
    promised: Callable[[], float | None],
) -> str | None:
    """That the last draws, the next one included, promise less than a share of the best value.

    Args:
        trials: in any order; the best of those that have ended and keep the constraints counts.
        mode: whether less or more of the metric is better.
        asked: how many draws, and the share.
        promised: what the model expects the next draw to gain; asked only where it decides.
    """
    known = [trial for trial in trials if trial.ended and trial.metric is not None and trial.allowed]
    before = sorted((trial for trial in trials if trial.error is None), key=lambda trial: trial.index)
    before = before[len(before) - (asked.draws - 1) :]
    best = rank(known, mode)[0].metric if known else None
    if best is None or len(before) < asked.draws - 1:
        return None
    limit = asked.below * abs(best)
    if not all(trial.gain is not None and trial.gain < limit for trial in before):
        return None
    gain = promised()
    if gain is None or gain >= limit:
        return None
    draws = f"each of {asked.draws} draws" if asked.draws > 1 else "the next draw"
    return (
        f"{draws} promised less than {asked.below:.3g} of the best, {best:.4g}: the next one {gain:.2g} "
        "(expected_improvement)"
    )


def _nothing_expected(model: MixtureProposer, plan: TrialPlan, trials: Sequence[TrialResult], index: int) -> str | None:
    objective, asked = plan.search.objective, plan.search.sweep.expected_improvement
    assert asked is not None
    seen = [seen_of(trial, objective) for trial in trials]
    reason = without_promise(trials, objective.goals[0].mode, asked, lambda: model.propose(index, seen).gain)
    found = model.findings(seen) if reason else None
    return reason if found is None or found.signal else f"{reason}; {found.words}"
