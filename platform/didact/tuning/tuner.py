"""Ray Tune: started or continued, until every trial has ended or failed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution import class_cache

from didact import env
from didact.cluster import FUSED_AT_ONCE, fused_worker, runs_at_once
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import SweepSpec
from didact.spec.search.schedulers import PopulationSpec
from didact.tuning.budget import Ledger
from didact.tuning.endings import ending
from didact.tuning.journal import Journal, JournalKeeper
from didact.tuning.proposals import Proposals, index_of
from didact.tuning.records import read_trial, seen_of
from didact.tuning.schedulers import build_scheduler
from didact.tuning.search import trial_name
from didact.tuning.searchers import Proposer
from didact.tuning.trial import GroupKeeper, TrialPlan, trainable

_LOG = get_logger(__name__)


def all_ended(total: int, journal: Journal) -> bool:
    """Whether none of `total` trials, or of those that the search was ended with, is left to run or to try again."""
    total = wanted(total, journal)
    ended = [entry for entry in journal.entries() if entry.ended]
    return len(ended) >= total


def wanted(total: int, journal: Journal) -> int:
    """Trials of the search; fewer where it was ended before it had all."""
    closed = journal.closed()
    return total if closed is None else min(total, closed[0])


def run_trials(
    plan: TrialPlan,
    state: Path,
    max_steps: int,
    proposer: Proposer,
    total: int,
    earlier: int = 0,
    ledger: Ledger | None = None,
) -> None:
    """Run Ray Tune until every trial has ended or failed; the journal says which.

    Args:
        plan: what the trials share.
        state: Tune's own folder; what is found there is continued.
        max_steps: of the longest trial.
        proposer: chooses what is tried.
        total: trials of the whole search.
        earlier: how many of them it had before it was given more.
        ledger: of a budget, which may end the search before it has all of them.

    Raises:
        PlacementError: the cluster will never have room for a trial.
        KeyboardInterrupt: Ctrl-C; the journal and Tune's state have what was reached.
    """
    placement = plan.search.base().placement
    if not plan.search.sweep.fused:
        room = runs_at_once(placement)
        _run_trials(plan, state, max_steps, proposer, total, earlier, ledger, room)
        return
    room = plan.search.sweep.max_concurrent or FUSED_AT_ONCE
    left = total - sum(entry.ended for entry in plan.journal.entries())
    name = f"fused-{fingerprint(str(state.absolute()))[:16]}"
    together, log = min(room, left), state.parent / "fused.log"
    # They begin together, so none is to wait until another one has been placed.
    begun = env.setting("TUNE_MAX_PENDING_TRIALS_PG", str(room))
    with begun, fused_worker(name, placement, together=together, log=log) as worker:
        _run_trials(replace(plan, group=worker), state, max_steps, proposer, total, earlier, ledger, room)


def _run_trials(
    plan: TrialPlan,
    state: Path,
    max_steps: int,
    proposer: Proposer,
    total: int,
    earlier: int,
    ledger: Ledger | None,
    room: int,
) -> None:
    spec, journal = plan.search.sweep, plan.journal
    env.set_default("RAY_AIR_NEW_OUTPUT", "0")  # the newer display prints a frame even when asked to be silent
    env.set_default("TUNE_DISABLE_SIGINT_HANDLER", "1")  # waits for trials, up to minutes
    env.set_default("TUNE_GLOBAL_CHECKPOINT_S", "1")  # a kill loses what Tune has not saved
    # Tune hands AWS's keys to trials by way of Ray's logs; trials receive them from us.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(env.private_for_workers())
    # Nearly nothing is reserved for a trial itself: its workers have their own reservation, and would else not fit.
    trial = tune.with_resources(trainable(plan), {"CPU": 0, "memory": 1})
    if tune.Tuner.can_restore(str(state)) and list(state.glob("experiment_state-*.json")):
        _LOG.info("continuing sweep %s", spec.name)
        tuner = tune.Tuner.restore(str(state), trial, resume_unfinished=True, resume_errored=True)
    else:
        proposals = Proposals(
            proposer,
            journal,
            lambda entry: seen_of(read_trial(plan, entry), plan.search.objective),
            lambda draw: plan.spec(draw.config(), "checked"),
            total=total,
            at_once=min(spec.max_concurrent or room, room),
            enough=ending(plan, ledger, proposer),
        )
        tuner = _new_tuner(plan, trial, state, max_steps, proposals, total - earlier, ledger)
    outcomes = {Path(outcome.path).name: outcome.error and _reason(outcome.error) for outcome in tuner.fit()}
    settle(journal, outcomes, plan.trials_dir, spec)
    entries = journal.entries()
    if not all(entry.ended or entry.error for entry in entries) or len(
        {index_of(entry, place) for place, entry in enumerate(entries)}
    ) < wanted(total, journal):
        _LOG.warning("sweep %s is interrupted; the same command continues it", spec.name)
        raise KeyboardInterrupt


def settle(journal: Journal, outcomes: Mapping[str, str | None], trials_dir: Path, spec: SweepSpec) -> None:
    """Have the journal say what became of every trial.

    Tune knows nothing of a trial that began just before a kill; its draw was tried again. What had not written its
    recipe yet leaves no trace; what had is told as failed, since its folder lies there.

    Args:
        journal: of the sweep.
        outcomes: trials that Tune knows, each with why it failed.
        trials_dir: where trials' run folders lie.
        spec: of the sweep.
    """
    entries = journal.entries()
    numbers = {entry.trial_id: index_of(entry, place) for place, entry in enumerate(entries)}
    again = {numbers[name] for name in outcomes if name in numbers}
    for entry in entries:
        error = outcomes.get(entry.trial_id)
        if error is not None:
            journal.fail(entry.trial_id, error)
        elif entry.trial_id not in outcomes and not entry.ended:
            is_there = (trials_dir / trial_name(spec, entry.trial_id)).exists()
            if numbers[entry.trial_id] in again and not is_there:
                journal.forget(entry.trial_id)
            else:
                lost = "the sweep was killed before Ray Tune had saved this trial; others replace it"
                journal.fail(entry.trial_id, lost)


def _new_tuner(
    plan: TrialPlan,
    trial: Any,
    state: Path,
    max_steps: int,
    proposals: Proposals,
    num_samples: int,
    ledger: Ledger | None,
) -> tune.Tuner:
    objective, stopping = plan.search.objective, plan.search.sweep.scheduler
    assert not isinstance(stopping, PopulationSpec)  # runs its trials itself
    return tune.Tuner(
        trial,
        tune_config=tune.TuneConfig(
            metric=objective.name,
            mode=objective.goals[0].mode,
            num_samples=num_samples,
            search_alg=proposals,
            scheduler=build_scheduler(stopping, objective, plan.trials_dir, max_steps, together=plan.group is not None),
            trial_dirname_creator=_trial_folder,
            reuse_actors=True,  # a trial that ends hands its process, and the worker that this keeps, to the next one
        ),
        run_config=tune.RunConfig(
            name=state.name,
            storage_path=str(state.parent),
            callbacks=[
                JournalKeeper(plan.journal, objective.name, ledger.alive if ledger else None),
                *([GroupKeeper(plan.search.sweep, plan.group)] if plan.group else ()),
            ],
            verbose=0,
        ),
    )


def _trial_folder(trial: Any) -> str:
    return str(trial.trial_id)


def _reason(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return str(cause).strip() or type(cause).__name__
