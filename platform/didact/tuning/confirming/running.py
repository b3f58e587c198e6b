"""The arms' runs, placed on Ray like a study's cells; each is an ordinary run in `<sweep>/confirm/`."""

from collections.abc import Iterator
from pathlib import Path

from didact.cluster import FUSED_AT_ONCE, finetune_each, has_trained, train_together
from didact.logs import get_logger
from didact.runs import Run
from didact.spec import FinetuneSpec
from didact.tracking import effective_records
from didact.tuning.confirming.arms import Arm, arm_spec, arms_of, fresh_seeds
from didact.tuning.confirming.verdict import ArmResult, Confirmation, judge
from didact.tuning.objective import Objective, costs, latest
from didact.tuning.records import TrialResult
from didact.tuning.trial import TrialPlan

_LOG = get_logger(__name__)


def confirmed(plan: TrialPlan, ranked: tuple[TrialResult, ...], folder: Path) -> Confirmation:
    """Run every arm with every fresh seed, as far as that has not been done, and judge them.

    Must be called within `ray_cluster`. A run that fails costs its arm; it is tried again the next time.

    Args:
        plan: of the sweep.
        ranked: its trials, best first.
        folder: where the runs lie.

    Raises:
        PlacementError: the cluster will never have room for a run.
        KeyboardInterrupt: Ctrl-C; what has been reached is kept.
    """
    search, seeds = plan.search, fresh_seeds(plan.search)
    arms = arms_of(search, ranked)
    # Seed by seed, so that an interruption leaves whole pairs.
    specs = {(arm.name, seed): arm_spec(search, arm, seed, plan.tracking_uri) for seed in seeds for arm in arms}
    waiting = [spec for spec in specs.values() if not has_trained(Run(folder / spec.name))]
    _LOG.info("sweep %s: %d of %d runs with fresh seeds are to be made", search.sweep.name, len(waiting), len(specs))
    errors: dict[str, str] = {}
    if waiting:
        for place, error in _made(plan, waiting, folder):
            if error is not None:
                _LOG.warning("run %s failed: %s", waiting[place].name, error)
                errors[waiting[place].name] = error
    names = {arm.name: [specs[arm.name, seed].name for seed in seeds] for arm in arms}
    found = tuple(measured_arm(arm, names[arm.name], folder, errors, search.objective) for arm in arms)
    goal = search.objective.goals[0]
    return judge(found, search.objective.name, goal.mode, seeds)


def _made(plan: TrialPlan, waiting: list[FinetuneSpec], folder: Path) -> Iterator[tuple[int, str | None]]:
    """As `finetune_each`; trained together where the trials were."""
    sweep = plan.search.sweep
    if sweep.fused:
        return train_together(waiting, folder, sweep.max_concurrent or FUSED_AT_ONCE, plan.parent_run_id)
    return finetune_each(waiting, folder, plan.at_once, parent_run_id=plan.parent_run_id)


def measured_arm(arm: Arm, names: list[str], folder: Path, errors: dict[str, str], objective: Objective) -> ArmResult:
    """What an arm's run folders say.

    Args:
        arm: that was run.
        names: of its runs, one a seed.
        folder: where they lie.
        errors: run -> why it failed.
        objective: reads the goal out of a run's metrics.
    """
    runs = [Run(folder / name) for name in names]
    measured = [_metrics(run) if run.name not in errors else {} for run in runs]
    common = [name for name in measured[0] if all(name in each for each in measured)] if measured else []
    means = {name: sum(each[name] for each in measured) / len(measured) for name in common}
    return ArmResult(
        arm.name,
        dict(arm.values),
        tuple(objective.value(each) for each in measured),
        arm.trial,
        tuple(run.path for run in runs),
        tuple(errors[name] for name in names if name in errors),
        objective.violations(means),
        means,
    )


def _metrics(run: Run) -> dict[str, float]:
    records = effective_records(run.steps)
    return {**latest(records), **costs(records)}
