"""One trial: a finetuning run inside a Ray Tune trial.

A trial that is trained with others has a process for Ray Tune's sake alone: what computes is loaded where it is used.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from didact import env
from didact.cluster import end_in_group, runs_at_once, train_in_group
from didact.connect import receive
from didact.files import write_json
from didact.runs import Run
from didact.spec import FinetuneSpec, SweepSpec, with_absolute_paths
from didact.spec.search.sweep import COSTS
from didact.tracking import effective_records
from didact.tuning.journal import Entry, Journal
from didact.tuning.objective import Objective, costs
from didact.tuning.search import Search, check_fused, trial_name, trial_spec, trial_values

if TYPE_CHECKING:
    from didact.cluster.kept.asking import KeptWorker
    from didact.cluster.train import WorkerGroup

_ENDING_SECONDS = "120"
"""That a trial which Tune has stopped may take to end in order, before its process takes the next one."""


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """What every trial of a sweep shares."""

    search: Search
    trials_dir: Path
    """Where trials' run folders lie; every node sees it."""
    journal: Journal
    tracking_uri: str
    parent_run_id: str | None
    """The sweep's MLflow run."""
    group: str | None = None
    """Name of the worker that trains the trials together on one base; None where each has its own."""
    root: Path = field(default_factory=Path.cwd)
    """What paths in recipe and draws are relative to: a trial's process has a working directory of its own."""

    @property
    def at_once(self) -> int:
        """Runs beside each other, each with workers of its own; asks the cluster that this process is connected to."""
        room = runs_at_once(self.search.base().placement)
        return min(self.search.sweep.max_concurrent or room, room)

    def spec(self, sample: dict[str, Any], trial_id: str) -> FinetuneSpec:
        """The recipe of the trial with this sample."""
        sweep = self.search.sweep
        values = trial_values(self.search, sample)
        name = trial_name(sweep, trial_id)
        spec = trial_spec(self.search.recipe, values, name, self.search.origin, self.tracking_uri)
        check_fused(self.search, spec, values)
        return with_absolute_paths(spec, self.root)


def metric_report(objective: Objective, num_steps: int, steps: Path) -> type[TuneReportCallback]:
    """What passes on the reports that carry the first goal; Tune refuses others. Call it on the trial's own thread.

    It is at work in Train's controller, a process of each trial. A nested class travels by value and holds plain data,
    so that the controller imports neither this room nor what the loop needs, for seconds of a processor.

    Args:
        objective: its first goal is passed on.
        num_steps: of the trial.
        steps: its record, which is written before a report.
    """
    weights, name = dict(objective.goals[0].weights), objective.name

    class MetricReport(TuneReportCallback):
        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
            """Called once all workers have reported."""
            from didact.tracking import effective_records

            first = metrics[0]
            if any(metric not in first for metric in weights):
                return
            done = [record for record in effective_records(steps) if record.step <= first["step"]]
            tokens = sum(record.metrics.get("train/tokens", 0.0) for record in done)
            value = sum(weight * first[metric] for metric, weight in weights.items())
            told = {"step": first["step"], "num_steps": num_steps, "tokens": tokens, name: value}
            super().after_report(run_context, [told], checkpoint)

    return MetricReport


def _measurement(steps: Path, step: int, num_steps: int) -> dict[str, Any]:
    """What schedulers are told of a measurement beside its value."""
    done = [record for record in effective_records(steps) if record.step <= step]
    return {"step": step, "num_steps": num_steps, "tokens": costs(done).get(COSTS[0], 0.0)}


def trainable(plan: TrialPlan) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls with each sample. An interrupted trial goes on from its run's newest checkpoint."""
    objective = plan.search.objective

    def trial(sample: dict[str, Any]) -> None:
        receive()
        env.set_default("TUNE_FUNCTION_THREAD_TIMEOUT_S", _ENDING_SECONDS)
        trial_id = tune.get_context().get_trial_id()
        # After a kill Tune may draw anew for a trial it had not saved; the journal has what its run was begun with.
        entry = plan.journal.find(trial_id) or Entry(trial_id, sample)
        spec = plan.spec(entry.sample, trial_id)
        run = Run(plan.trials_dir / spec.name)
        train = _train_alone if plan.group is None else _train_together
        if not entry.ended:
            drawn = {
                "sweep": plan.search.sweep.name,
                "trial": trial_id,
                "values": trial_values(plan.search, entry.sample),
            }
            write_json(run.trial, drawn)
        if entry.ended or not train(plan, spec, run):
            # It ended in an earlier process that was killed before Tune had saved the end.
            measured = [each for each in effective_records(run.steps) if objective.value(each.metrics) is not None]
            told = _measurement(run.steps, measured[-1].step, _num_steps(spec))
            tune.report({**told, objective.name: objective.value(measured[-1].metrics)})

    return trial


def _num_steps(spec: FinetuneSpec) -> int:
    if spec.training.steps:
        return spec.training.steps
    from didact.evaluation import task_texts
    from didact.preparation import prepare_data

    return prepare_data(spec, task_texts=task_texts).num_steps


def _train_alone(plan: TrialPlan, spec: FinetuneSpec, run: Run) -> bool:
    """Train a trial with workers of its own or the one that is kept; whether there was anything to train."""
    from didact.cluster import OwnWorkers, can_be_kept, finetune

    workers: WorkerGroup
    # While it waits for its next trial it holds what one with other workers would wait for.
    if can_be_kept(spec) and not any(path.startswith("training.sharding") for path in plan.search.sweep.space):
        workers = _kept().for_run(_reporter(plan.search.objective, run, _num_steps(spec)))
    else:
        workers = OwnWorkers((metric_report(plan.search.objective, _num_steps(spec), run.steps)(),))
    return finetune(spec, plan.trials_dir, parent_run_id=plan.parent_run_id, workers=workers).training is not None


@functools.cache
def _kept() -> "KeptWorker":
    """The worker of this process: Tune has it run trial after trial."""
    from didact.cluster import KeptWorker

    return KeptWorker()


def _reporter(objective: Objective, run: Run, num_steps: int) -> Callable[[dict[str, Any]], None]:
    """Tells Tune of measurements that have the goal; returns when the trial goes on, raises SystemExit when it ends."""

    def report(metrics: dict[str, Any]) -> None:
        if (value := objective.value(metrics)) is not None:
            tune.report({**_measurement(run.steps, metrics["step"], num_steps), objective.name: value})

    return report


def _train_together(plan: TrialPlan, spec: FinetuneSpec, run: Run) -> bool:
    """Have a trial trained with others, where what it needs is loaded once; whether it measured anything."""
    objective, told = plan.search.objective, False
    assert plan.group is not None

    def measured(metrics: dict[str, Any]) -> None:
        nonlocal told
        told = told or objective.value(metrics) is not None
        _reporter(objective, run, metrics["num_steps"])(metrics)

    train_in_group(plan.group, spec, plan.trials_dir, plan.parent_run_id, measured)
    return told


class GroupKeeper(tune.Callback):
    """Tells the worker that trains the trials together who is ended, on the sweep's driver."""

    def __init__(self, sweep: SweepSpec, worker: str) -> None:
        """Holds names only: Tune brings a copy back when a sweep continues.

        Args:
            sweep: whose trials they are.
            worker: name of the actor.
        """
        self._sweep, self._worker = sweep, worker

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended by itself or by the scheduler, whose process may be gone."""
        self._leave(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has failed, perhaps before it had joined."""
        self._leave(trial.trial_id)

    def _leave(self, trial_id: str) -> None:
        end_in_group(self._worker, trial_name(self._sweep, trial_id))
