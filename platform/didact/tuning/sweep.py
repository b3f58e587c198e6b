"""The whole road of a sweep: check, search, close the trials' MLflow runs, evaluate and register the best.

<runs>/<sweep>/
    sweep.json      the search and the recipe with overrides; a continued sweep must agree with it
    trials/         run folders
    journal/        one file a trial: its sample, whether it has ended
    tune/           Ray Tune's own state
    mlflow.json     the sweep's MLflow run, parent of the trials'
    results.json, results.md
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from didact import env
from didact.cluster import finetune, is_trained, ray_cluster
from didact.connect import check_ray
from didact.errors import RunError
from didact.evaluation import task_texts
from didact.files import write_json
from didact.interrupts import INTERRUPTS
from didact.logs import get_logger
from didact.preparation import prepare_data
from didact.runs import Run, open_run
from didact.spec import FinetuneSpec, SweepSpec
from didact.tracking import FinalStatus, MlflowSync, effective_records, resolve_uri
from didact.tracking import open_run as open_mlflow_run
from didact.tuning.journal import Entry, Journal
from didact.tuning.results import Status, SweepResult, TrialResult, rank
from didact.tuning.search import Search, best_spec, load_search, trial_name
from didact.tuning.space import trial_values
from didact.tuning.trial import TrialPlan
from didact.tuning.tuner import Known, all_ended, run_trials

_LOG = get_logger(__name__)
_CHANGEABLE = ("register_best_as",)
_CHANGEABLE_RECIPE = ("placement", "tracking", "evaluation", "register_as")


def run_sweep(
    spec: SweepSpec, origin: Path, runs_dir: Path | None = None, *, recipe: FinetuneSpec | None = None
) -> SweepResult:
    """Run all trials and register the best; called again after any interruption, it goes on where it was.

    Trials that have ended are kept as they are, others continue from their own checkpoints, and failed ones are tried
    again. A finished sweep is given more trials by a larger `num_trials`: random draws and grids go on where they were,
    optuna learns from what it has, and what is stopped early is decided beside all trials.

    Args:
        spec: what to search.
        origin: the file it was read from; recipes are looked for beside it.
        runs_dir: where the sweep's folder is made; default `DIDACT_RUNS`.
        recipe: what trials start from, instead of the file that `spec` names.

    Raises:
        SpecError: the search does not fit its recipe.
        RunError: a sweep of this name exists with other settings or is in use, or every trial failed.
        KeyboardInterrupt: Ctrl-C; what has been reached is kept.
    """
    check_ray()
    search = load_search(spec, origin, recipe)
    runs_dir = (runs_dir or env.runs_dir()).absolute()
    folder = runs_dir / spec.name
    with _locked(folder):
        grown = _remember(search, folder)
        # Reads and caches the data once, before the trials do.
        max_steps = prepare_data(search.longest(), task_texts=task_texts).num_steps
        with ray_cluster(dashboard=True), _tracked(search, folder, runs_dir, grown) as plan:
            if not all_ended(spec, plan.journal):
                earlier = grown[-1] if grown else 0
                state = folder / (f"tune-{earlier}" if earlier else "tune")
                run_trials(plan, state, max_steps, _known(plan) if earlier else (), earlier)
            result = _results(plan)
            result.save(folder)
            _close_runs(plan, result)
            if result.best is None:
                raise RunError(f"every trial of sweep {spec.name!r} failed, the first with: {result.trials[0].error}")
            if spec.register_best_as:
                result = _publish(plan, result)
                result.save(folder)
    return result


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise RunError(f"sweep {folder.name!r} is in use by another process (lock {folder}/.lock)") from None


def _remember(search: Search, folder: Path) -> list[int]:
    """Write the search down, or refuse to continue one that was different; more trials for a finished one are welcome.

    Returns:
        The numbers of trials that it was finished with before it was given more, ascending.
    """
    file = folder / "sweep.json"
    sweep = search.sweep
    now = {"sweep": sweep.model_dump(mode="json"), "recipe": search.base().model_dump(mode="json")}
    grown: list[int] = []
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        grown = before.get("grown_from", [])
        changed = [
            f"{part}.{key}: was {before[part].get(key)!r}, now {value!r}"
            for part, free in (("sweep", _CHANGEABLE), ("recipe", _CHANGEABLE_RECIPE))
            for key, value in now[part].items()
            if key not in free and before[part].get(key) != value
        ]
        was = before["sweep"]["num_trials"]
        if sweep.num_trials > was and len(changed) == 1:
            if not all_ended(sweep.model_copy(update={"num_trials": was}), Journal(folder / "journal")):
                raise RunError(
                    f"sweep {sweep.name!r} has not ended with {was} trials: finish it with num_trials={was}, then "
                    f"give it {sweep.num_trials}"
                )
            grown, changed = [*grown, was], []
        if changed:
            listed = "\n".join(f"  - {line}" for line in changed)
            raise RunError(
                f"sweep {folder.name!r} exists in {folder.parent} with other settings:\n{listed}\n"
                "Set another name or undo the changes"
            )
    write_json(file, {**now, "grown_from": grown})
    return grown


@contextmanager
def _tracked(search: Search, folder: Path, runs_dir: Path, grown: list[int]) -> Iterator[TrialPlan]:
    """Own the sweep's MLflow run, the parent of the trials' runs."""
    base = search.base()
    uri = resolve_uri(base.tracking, runs_dir)
    tracking = base.tracking.model_copy(update={"uri": uri})
    sweep = search.sweep
    parent = open_mlflow_run(
        folder,
        sweep.name,
        tracking,
        params={key: json.dumps(value) for key, value in sweep.model_dump(mode="json").items()},
        tags={"didact.sweep": str(folder), **({"didact.grown_from": json.dumps(grown)} if grown else {})},
        inputs=(),
        resolved_spec=(folder / "sweep.json").read_text(encoding="utf-8"),
    )
    status: FinalStatus = "FAILED"
    try:
        yield TrialPlan(search, folder / "trials", Journal(folder / "journal"), uri, parent)
        status = "FINISHED"
    except INTERRUPTS:
        status = "KILLED"
        raise
    finally:
        patience = 1.0 if status == "KILLED" else 20.0
        if not MlflowSync(folder, sweep.name, tracking).close(status, patience):
            _LOG.warning("MLflow does not have everything of this sweep yet; later: didact sync %s", folder)


def _results(plan: TrialPlan) -> SweepResult:
    sweep = plan.search.sweep
    trials = rank([_trial_result(plan, entry) for entry in plan.journal.entries()], sweep.mode)
    best = trials[0] if trials and trials[0].status != "failed" else None
    return SweepResult(sweep.name, sweep.metric, sweep.mode, trials, best)


def _known(plan: TrialPlan) -> list[Known]:
    """What trials that have ended measured last, for a searcher that learns from it."""
    measured = [(entry.sample, _trial_result(plan, entry).metric) for entry in plan.journal.entries() if entry.ended]
    return [(sample, metric) for sample, metric in measured if metric is not None]


def _trial_result(plan: TrialPlan, entry: Entry) -> TrialResult:
    """From the run folder, which is right whatever Tune has heard."""
    sweep = plan.search.sweep
    run = Run(plan.trials_dir / trial_name(sweep, entry.trial_id))
    records = effective_records(run.steps)
    measured = [record.metrics[sweep.metric] for record in records if sweep.metric in record.metrics]
    trained = run.recipe.is_file() and is_trained(run, run.spec())
    return TrialResult(
        name=run.name,
        values=trial_values(sweep.space, entry.sample),
        metric=measured[-1] if measured else None,
        steps=records[-1].step if records else 0,
        status="failed" if entry.error else "finished" if trained else "stopped early",
        run=run.path,
        error=entry.error,
    )


def _close_runs(plan: TrialPlan, result: SweepResult) -> None:
    """End the MLflow runs of trials whose own process died before it could: stopped ones, and some failed ones."""
    for trial in result.trials:
        if trial.status != "finished" and (trial.run / "recipe.json").is_file():
            _close_run(plan, trial.run, trial.status)


def _close_run(plan: TrialPlan, path: Path, status: Status) -> None:
    tags = {"didact.stopped_early": str(status == "stopped early").lower()}
    sync = MlflowSync(path, path.name, open_run(path).spec().tracking, plan.parent_run_id, tags)
    sync.close("FAILED" if status == "failed" else "FINISHED")


def _publish(plan: TrialPlan, result: SweepResult) -> SweepResult:
    """Train the best trial to its end if it was stopped, then evaluate and register it."""
    best = result.best
    assert best is not None
    run = open_run(best.run)
    outcome = finetune(best_spec(plan.search, run.spec()), plan.trials_dir, parent_run_id=plan.parent_run_id)
    if best.status == "stopped early":
        _close_run(plan, best.run, "finished")
        result = _results(plan)
    return replace(result, outcome=outcome)
