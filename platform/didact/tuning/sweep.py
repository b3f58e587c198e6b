"""The whole road of a sweep: check, search, close the trials' MLflow runs, evaluate and register the best.

<runs>/<sweep>/
    sweep.json      the search and the recipe with overrides; a continued sweep must agree with it
    trials/         run folders
    confirm/        run folders of the best trials with fresh seeds, and of what they are compared with
    journal/        one file a trial: its sample, whether it has ended
    closed.json     with how many trials the search was ended before it had all, and why
    proxy/          run folders of single sources; proxy.json what sums of them say of mixtures
    population.json of `rule: population`: who copied whom at which step
    budget.json     what a budget is spent on; spent.json how long the sweep took so far
    tune/           Ray Tune's own state
    study.db        of `searcher: optuna`, for optuna-dashboard
    mlflow.json     the sweep's MLflow run, parent of the trials'
    results.json, results.md, results.html
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from didact import env
from didact.cluster import finetune, ray_cluster, score_on_ray
from didact.connect import check_ray
from didact.errors import RunError
from didact.evaluation import task_texts
from didact.files import write_json, write_text
from didact.interrupts import INTERRUPTS
from didact.logs import get_logger
from didact.preparation import DataFacts, PreparedData, prepare_data
from didact.runs import check_name_is_free, differences, locked, of_other_settings, open_run
from didact.spec import FinetuneSpec, SweepSpec, validate
from didact.spec.search.schedulers import PopulationSpec
from didact.tracking import FinalStatus, MlflowSync, load_state, resolve_uri
from didact.tracking import open_run as open_mlflow_run
from didact.tuning.board import Watcher, show_board
from didact.tuning.budget import Ledger, keep_plan, kept_plan, plan_budget
from didact.tuning.confirming import confirmed
from didact.tuning.journal import Journal
from didact.tuning.page import render_sweep, sweep_facts
from didact.tuning.population import check_population, run_population
from didact.tuning.proxies import check_proxy, proxied
from didact.tuning.records import Status, read_trials, seen_of
from didact.tuning.results import SweepResult, result_of
from didact.tuning.schedulers import words_of
from didact.tuning.search import Search, best_spec, load_search, named_mixtures, num_trials
from didact.tuning.searchers import MixtureProposer, OptunaProposer, Proposer, Response, build_proposer
from didact.tuning.spaces import Sizes
from didact.tuning.trial import TrialPlan
from didact.tuning.tuner import all_ended, run_trials
from didact.tuning.warm import earlier_trials

_LOG = get_logger(__name__)
_CHANGEABLE = ("register_best_as", "confirm")
_CHANGEABLE_RECIPE = ("placement", "tracking", "evaluation", "register_as")


def run_sweep(
    spec: SweepSpec, origin: Path, runs_dir: Path | None = None, *, recipe: FinetuneSpec | None = None
) -> SweepResult:
    """Run all trials and register the best; called again after any interruption, it goes on where it was.

    Trials that have ended are kept as they are, others continue from their own checkpoints, and failed ones are tried
    again. A finished sweep is given more trials by a larger `num_trials`: draws go on where they were, searchers learn
    from all that was measured, and what is stopped early is decided beside all trials. With `confirm` the best trials
    are run again with fresh seeds in the end, each run once however often this is called.

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
    started = time.time()
    search = load_search(spec, origin, recipe)
    runs_dir = (runs_dir or env.runs_dir()).absolute()
    folder = runs_dir / spec.name
    check_name_is_free(folder, "sweep")
    with locked(folder, "sweep"):
        # Reads and caches the data once, before the trials do.
        longest = search.longest()
        prepared = prepare_data(longest, task_texts=task_texts, score=score_on_ray)
        search = search.sized(_sizes(prepared, longest))
        search, ledger = _budgeted(search, longest, prepared, folder)
        spec = search.sweep
        if isinstance(spec.scheduler, PopulationSpec):
            check_population(search, spec.scheduler, prepared.num_steps)
        if spec.proxy:
            check_proxy(search)
        proposer = build_proposer(
            spec,
            search.space,
            search.objective,
            study=folder / "study.db",
            starts=named_mixtures(search),
            earlier=earlier_trials(spec.warm_start, runs_dir, search.space, search.objective, search.origin),
        )
        if isinstance(proposer, OptunaProposer):
            proposer.check()
        grown = _remember(search, folder)
        if ledger:
            keep_plan(ledger.plan, folder / "budget.json")
            ledger.begin(started)
        with ray_cluster(), _tracked(search, folder, runs_dir, grown) as plan:
            total = ledger.plan.most_trials if ledger else num_trials(search)
            tokens = sum(source.tokens_seen for source in DataFacts.of(longest, prepared).sources)
            if isinstance(proposer, MixtureProposer) and spec.proxy:
                proposer = proxied(plan, proposer, prepared.num_steps)
            watcher = Watcher(plan, total, prepared.num_steps, ledger, tokens)
            _search(watcher, proposer, grown[-1] if grown else 0)
            return _finished(plan, folder, ledger, *_findings(plan, proposer))


def _search(watcher: Watcher, proposer: Proposer, earlier: int) -> None:
    """Run what is left of the trials; `earlier` of them were there before the sweep was given more."""
    plan, total, num_steps = watcher.plan, watcher.total, watcher.num_steps
    search, spec = plan.search, plan.search.sweep
    _LOG.info("early stopping: %s", words_of(spec.scheduler, watcher.longest))
    if isinstance(spec.scheduler, PopulationSpec):
        with show_board(watcher):
            run_population(plan, num_steps, proposer, total)
    elif not all_ended(total, plan.journal):
        state = plan.trials_dir.parent / (f"tune-{earlier}" if earlier else "tune")
        points = num_trials(search) // spec.num_trials
        with show_board(watcher):
            run_trials(plan, state, num_steps, proposer, total, earlier * points, watcher.ledger)


def _finished(
    plan: TrialPlan, folder: Path, ledger: Ledger | None, findings: str | None, responses: dict[str, Response]
) -> SweepResult:
    """What is done once all trials have ended."""
    spec, result = plan.search.sweep, replace(_results(plan, findings), responses=responses)
    _save(result, folder)
    _close_runs(plan, result)
    if result.best is None:
        raise RunError(_nothing(spec.name, result))
    if spec.confirm:
        result = result.with_confirmation(confirmed(plan, result.trials, folder / "confirm"))
        _save(result, folder)
    if ledger:
        ledger.alive()
        result = replace(result, spending=ledger.words(result.trials, _again(result)))
        _save(result, folder)
    if spec.register_best_as:
        result = _publish(plan, result)
        _save(result, folder)
    return result


def _budgeted(
    search: Search, longest: FinetuneSpec, prepared: PreparedData, folder: Path
) -> tuple[Search, Ledger | None]:
    """The search with what its budget decides; the plan is shown before anything starts."""
    if search.sweep.budget is None:
        return search, None
    plan = kept_plan(folder / "budget.json") or plan_budget(search, longest, prepared, folder.parent)
    for line in plan.lines:
        _LOG.info("%s", line)
    return replace(search, sweep=plan.applied(search.sweep)), Ledger(folder / "spent.json", plan)


def _again(result: SweepResult) -> float:
    """Tokens of the runs with fresh seeds."""
    arms = result.confirmation.arms if result.confirmation else ()
    return sum(arm.metrics.get("cost/tokens", 0.0) * len(arm.runs) for arm in arms)


def _sizes(prepared: PreparedData, spec: FinetuneSpec) -> Sizes:
    mixture = prepared.mixture.mixture
    return Sizes(
        dict(zip(mixture.names, mixture.rows, strict=True)),
        dict(zip(mixture.names, mixture.mean_tokens, strict=True)),
        prepared.num_steps * spec.training.global_batch_size,
    )


def _nothing(name: str, result: SweepResult) -> str:
    """Why there is no best trial."""
    if ended := [trial for trial in result.trials if trial.status != "failed"]:
        least = min(max(trial.violations) for trial in ended)
        return (
            f"none of the {len(ended)} trials of sweep {name!r} keeps all constraints; the nearest breaks one by "
            f"{least:.4g}. Give it more trials, or a constraint more margin"
        )
    return f"every trial of sweep {name!r} failed, the first with: {result.trials[0].error}"


def _save(result: SweepResult, folder: Path) -> None:
    result.save(folder)
    write_text(folder / "results.html", render_sweep(sweep_facts(result)))


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
        # Read as what it says, since an earlier version knew fewer settings.
        for part, kind in (("sweep", SweepSpec), ("recipe", FinetuneSpec)):
            before[part] = validate(kind, before[part], f"{file}: {part}").model_dump(mode="json")
        grown = before.get("grown_from", [])
        changed = [
            line
            for part, free in (("sweep", _CHANGEABLE), ("recipe", _CHANGEABLE_RECIPE))
            for key, value in now[part].items()
            if key not in free
            for line in differences(before[part].get(key), value, f"{part}.{key}")
        ]
        was = before["sweep"]["num_trials"]
        # A population compares all its trials at each interval, so that none can be added later.
        if sweep.num_trials > was and len(changed) == 1 and not isinstance(sweep.scheduler, PopulationSpec):
            journal = Journal(folder / "journal")
            if not all_ended(was * len(search.space.grid_points()), journal):
                raise RunError(
                    f"sweep {sweep.name!r} has not ended with {was} trials: finish it with num_trials={was}, then "
                    f"give it {sweep.num_trials}"
                )
            closed = journal.closed()
            grown, changed = [*grown, closed[0] if closed else was], []
            journal.reopen()
        if changed:
            raise of_other_settings("sweep", folder, changed)
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


def _results(plan: TrialPlan, findings: str | None = None) -> SweepResult:
    closed = plan.journal.closed()
    ending = closed[1] if closed else None
    return result_of(plan.search.sweep.name, plan.search.objective, read_trials(plan), findings, ending)


def _findings(plan: TrialPlan, proposer: Proposer) -> tuple[str | None, dict[str, Response]]:
    """What the searcher's model learned from the finished trials, in words and along each setting."""
    if not isinstance(proposer, MixtureProposer):
        return None, {}
    seen = [seen_of(trial, plan.search.objective) for trial in read_trials(plan) if trial.status == "finished"]
    found, proxy = proposer.findings(seen), proposer.proxy_words(seen)
    if found is not None and not found.signal:
        _LOG.warning("sweep %s: %s", plan.search.sweep.name, found.words)
    said = [*([found.words] if found else []), *([proxy] if proxy else [])]
    return "; ".join(said) or None, proposer.responses(seen)


def _close_runs(plan: TrialPlan, result: SweepResult) -> None:
    """End the MLflow runs of trials whose own process died before it could: a killed driver's, and some failed ones."""
    for trial in result.trials:
        if not (trial.run / "recipe.json").is_file():
            continue
        state = load_state(trial.run)
        if trial.status != "finished" or (state is not None and state.status != "FINISHED"):
            _close_run(plan, trial.run, trial.status)


def _close_run(plan: TrialPlan, path: Path, status: Status) -> None:
    tags = {"didact.stopped_early": str(status == "stopped early").lower()}
    sync = MlflowSync(path, path.name, open_run(path).spec().tracking, plan.parent_run_id, tags)
    sync.close("FAILED" if status == "failed" else "FINISHED")


def _publish(plan: TrialPlan, result: SweepResult) -> SweepResult:
    """Evaluate and register the best trial, trained to its end if it was stopped.

    Of a winner with fresh seeds it is the run with the first one; to choose among them would be to choose by luck.
    """
    best = result.best
    assert best is not None
    again = result.confirmation.arm(best.name) if result.confirmation else None
    if again is not None and again.measured is not None:
        run = open_run(again.runs[0])
        outcome = finetune(best_spec(plan.search, run.spec()), run.path.parent, parent_run_id=plan.parent_run_id)
        return replace(result, outcome=outcome)
    run = open_run(best.run)
    outcome = finetune(best_spec(plan.search, run.spec()), plan.trials_dir, parent_run_id=plan.parent_run_id)
    if best.status == "stopped early":
        _close_run(plan, best.run, "finished")
        again_read = _results(plan, result.findings)
        known = result
        result = replace(
            again_read, confirmation=known.confirmation, spending=known.spending, responses=known.responses
        )
    return replace(result, outcome=outcome)
