"""The whole road of one run: data, training, evaluation, gate, registration; MLflow is told all along."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import torch
from rich.console import Group
from rich.text import Text
from typing_extensions import override

from didact import env
from didact.adapter_folder import check_folder
from didact.cluster.asking.others import check_others
from didact.cluster.asking.subjects import HeldOutRows, Subject
from didact.cluster.attempts import train_to_the_end
from didact.cluster.evaluate import evaluate_on_ray, subject_beside, trained_subject
from didact.cluster.placement import worker_resources
from didact.cluster.preparing.parts import WORTH_RAY_BYTES, ray_runner
from didact.cluster.preparing.scores import score_on_ray
from didact.cluster.progress import show_progress
from didact.cluster.train import OwnWorkers, WorkerGroup
from didact.connect import check_ray, ray_cluster
from didact.devices import num_gpus
from didact.display import Shown
from didact.errors import AdapterError, DidactError, SpecError
from didact.evaluation import EvalReport, GateResult, TaskReader
from didact.evaluation.page import render_evaluation
from didact.evaluation.report import ADAPTER
from didact.evaluation.tasks import check_tasks
from didact.files import new_folder, write_text
from didact.interrupts import INTERRUPTS
from didact.lineage import keep_lineage
from didact.logs import get_logger, kept_in
from didact.models import base_fingerprint, check_method, check_start, check_stored, verify_adapter
from didact.preparation import (
    DataFacts,
    Plan,
    PreparedData,
    ScoreJob,
    Scorer,
    memory_in_words,
    prepare_run,
    with_seen,
    write_decided,
)
from didact.registry import ModelVersion, locate_adapter, registry_of
from didact.registry.card import write_card
from didact.registry.evidence import champion_of
from didact.registry.publish import publish_run
from didact.registry.versions import registered
from didact.runs import Run, descents, go_on, note_start, start_run
from didact.spec import FinetuneSpec, FullSpec, with_absolute_paths
from didact.tracking import FinalStatus, MlflowSync, effective_records, log_artifacts, open_run
from didact.training import TrainResult, check_devices

_LOG = get_logger(__name__)
_JUDGED_STEPS = 5
"""Fewer say nothing of where a loss goes."""
_PATIENCE_SECONDS, _HURRY_SECONDS = 20.0, 1.0  # for MLflow at the end of a run; what it has not taken is said later


class Trainer(Protocol):
    """Trains a run in the place of workers of its own."""

    def __call__(self, run: Run, *, allow_fresh: bool) -> TrainResult:
        """Train until its last step, or until it is told to stop."""


@dataclass(frozen=True, slots=True)
class FinetuneResult(Shown):
    """What a run left behind."""

    run: Run
    training: TrainResult | None
    """None when an earlier attempt had already finished training."""
    report: EvalReport | None
    gate: GateResult | None
    version: ModelVersion | None
    mlflow_run_id: str | None

    @override
    def __rich__(self) -> Group:
        return self.render()

    def render(self) -> Group:
        """What a person wants to know at the end of a run."""
        lines = [f"run        {self.run.path}", f"adapter    {self.run.adapter}"]
        if self.training and self.training.loss is not None:
            rate = self.training.tokens / self.training.seconds
            lines.insert(
                1, f"training   {self.training.steps} steps, last loss {self.training.loss:.4f}, {rate:,.0f} tokens/s"
            )
        if worse := loss_that_rose(self.run.steps):
            lines.append(f"learned    nothing: {worse}")
        lines += [f"gate       {line.removeprefix('eval/')}" for line in (self.gate.lines if self.gate else ())]
        if self.version:
            lines.append(registered(self.version, is_refused=self.gate is not None and not self.gate.passed))
        table = [self.report.table()] if self.report else []
        return Group(*table, *(Text(line) for line in lines))


def loss_that_rose(steps: Path) -> str | None:
    """What to say of a run whose loss ended above its start, by the mean of a tenth of its steps at each end."""
    losses = [each.metrics["train/loss"] for each in effective_records(steps) if "train/loss" in each.metrics]
    part = max(1, len(losses) // 10)
    if len(losses) < _JUDGED_STEPS:
        return None
    first, last = sum(losses[:part]) / part, sum(losses[-part:]) / part
    if last <= first:  # also false where it is not a number any more
        return None
    return f"the loss began at {first:.4f} and ended at {last:.4f}; try a lower training.learning_rate"


def finetune(
    spec: FinetuneSpec,
    runs_dir: Path | None = None,
    *,
    parent_run_id: str | None = None,
    workers: WorkerGroup | None = None,
    group: Trainer | None = None,
    allow_fresh: bool = False,
    until: int | None = None,
) -> FinetuneResult:
    """Run a recipe from data to registered adapter; called again after any interruption, it goes on where it was.

    Args:
        spec: the recipe.
        runs_dir: where run folders lie; default `DIDACT_RUNS`.
        parent_run_id: MLflow run this one belongs to, as in a sweep.
        workers: who trains; default: workers of its own.
        group: trains the run with others on one base, in the place of workers of its own.
        allow_fresh: when no checkpoint of an earlier attempt verifies, set them aside and train from the base.
        until: optimizer steps after which training pauses, to be gone on with by another call; None for all.

    Raises:
        DidactError: anything that keeps the recipe from running, with what to change.
    """
    spec = with_absolute_paths(spec)
    tasks = _check_this_machine(spec)
    for doubt in spec.doubts:
        _LOG.warning("%s", doubt)
    run = start_run(spec, runs_dir or env.runs_dir())
    workers = workers or OwnWorkers()
    _LOG.info("what the libraries say goes to %s", run.log)
    with run.lock(), kept_in(run.log), ray_runner(WORTH_RAY_BYTES, workers.make_room) as runner:
        prepared, data = prepare_run(run, spec, runner, tasks.texts, _scorer(workers))
        _take_start(run, spec)
        go_on(run, spec, prepared.mixture.mixture.num_rows)
        with ray_cluster(), _tracked(run, spec, data, parent_run_id) as mlflow_run_id:
            training = _train(run, spec, prepared, data, workers, group, allow_fresh, until)
            if training is not None and training.steps < prepared.num_steps:
                return FinetuneResult(run, training, None, None, None, mlflow_run_id)
            write_decided(run, spec)
            write_card(run)  # an evaluation that is killed leaves an adapter that says what it is
            report = _evaluate(run, spec, tasks, workers)
            write_card(run)
            if spec.tracking.mlflow:
                _log_outputs(run, spec)
            gate, version = None, None
            if spec.register_as is not None:
                gate, version = publish_run(run, spec, spec.register_as, mlflow_run_id)
                keep_lineage(registry_of(run, spec.tracking), version, run)
    return FinetuneResult(run, training, report, gate, version, mlflow_run_id)


def _scorer(workers: WorkerGroup) -> Scorer:
    """Scores rows on Ray, in the place of workers that are held for training."""

    def score(jobs: Sequence[ScoreJob], spec: FinetuneSpec) -> Iterator[int]:
        workers.make_room()
        return score_on_ray(jobs, spec)

    return score


def _take_start(run: Run, spec: FinetuneSpec) -> None:
    """Copy the adapter that training begins with into the run folder: every worker sees it there, whatever its name
    means later."""
    reference = spec.adapter.start
    if reference is None:
        return
    fingerprint = base_fingerprint(spec.model)
    if run.start.is_dir():
        check_start(run.start, spec.adapter, fingerprint)
        return
    folder = locate_adapter(reference, registry_of(run, spec.tracking))
    sha256 = check_start(folder, spec.adapter, fingerprint)
    note_start(run, reference, spec.training.length, sha256)
    with new_folder(run.start) as scratch:
        shutil.copytree(folder, scratch, dirs_exist_ok=True)
    _LOG.info("run %s begins with adapter %s (%s)", run.name, reference, sha256[:12])


def _check_this_machine(spec: FinetuneSpec) -> TaskReader:
    """What this machine cannot do is known before its data is read, when the run stays on it; workers check as well.

    A GPU that is there is left to them: looking at it takes memory of it. Returns what has read the evaluation's
    questions: those that are asked after training.
    """
    check_ray()
    check_others(spec.evaluation)
    tasks = check_tasks(spec.evaluation)
    check_stored(spec.model)
    check_method(spec.model, spec.adapter)
    if ray.is_initialized() or env.ray_address():
        return tasks
    on_gpu = spec.placement.device == "gpu" or (spec.placement.device == "auto" and num_gpus() > 0)
    if not on_gpu or not num_gpus():
        check_devices(spec, torch.device("cuda" if on_gpu else "cpu"))
    return tasks


def is_trained(run: Run, spec: FinetuneSpec) -> bool:
    """Whether an earlier attempt has finished training and its result is whole."""
    if isinstance(spec.adapter, FullSpec):
        return (run.adapter / "config.json").is_file()
    try:
        verify_adapter(run.adapter)
    except AdapterError:
        return False
    return True


def has_trained(run: Run) -> bool:
    """Whether a run that may never have begun has finished training, by its own recipe."""
    return run.recipe.is_file() and is_trained(run, run.spec())


def _train(
    run: Run,
    spec: FinetuneSpec,
    prepared: PreparedData,
    data: DataFacts,
    workers: WorkerGroup,
    group: Trainer | None,
    allow_fresh: bool,
    until: int | None,
) -> TrainResult | None:
    if is_trained(run, spec):
        _LOG.info("run %s is trained already; going on with its evaluation", run.name)
        return None
    num_steps = prepared.num_steps

    def estimate(spec: FinetuneSpec, *, on_cpu: bool) -> str:
        plan = Plan.of(spec, prepared, data, on_cpu=on_cpu)
        longest = f"with the longest samples ({plan.largest_tokens:,} tokens)"
        return (
            f"{memory_in_words(plan.largest)} {longest}, {plan.footprint.total_gib:.2f} GiB with those of mean length"
        )

    with show_progress(run, num_steps):
        if group is not None:
            return group(run, allow_fresh=allow_fresh)
        return train_to_the_end(
            run,
            spec,
            num_steps=num_steps,
            estimate=estimate,
            workers=workers,
            allow_fresh=allow_fresh,
            until=until,
        )


def _evaluate(run: Run, spec: FinetuneSpec, tasks: TaskReader, workers: WorkerGroup) -> EvalReport | None:
    if spec.evaluation is None or not spec.evaluation.tasks:
        return None
    recipe = spec if any(source.held_out_rows for source in spec.data.sources) else None
    asked = tuple(task for task in spec.evaluation.tasks if recipe or task.task != "held_out")
    if not asked:
        return None
    workers.make_room()
    _LOG.info("evaluating the base and the result side by side: %s", ", ".join(task.task for task in asked))
    base = Subject(spec.model.base, spec.model, tokens=spec.tokens)
    tuned = trained_subject(base, run.adapter, run.name, whole=isinstance(spec.adapter, FullSpec))
    evaluation = spec.evaluation.model_copy(update={"tasks": asked})
    rows = HeldOutRows(recipe, run.prepared) if recipe else None
    losses = any(task.task == "held_out" for task in asked)
    subjects = {"base": base, "adapter": tuned, **_champion(run, spec, base, measures_losses=losses)}
    speed = spec.register_as is not None and spec.register_as.gate.slower is not None
    report = evaluate_on_ray(subjects, evaluation, worker_resources(spec.placement), rows, speed=speed, tasks=tasks)
    report = with_seen(report, ADAPTER, spec, tasks.texts)
    report.save(run.report)
    write_text(run.report_page, render_evaluation(report))
    write_text(run.report_text, report.markdown())
    return report


def _champion(run: Run, spec: FinetuneSpec, base: Subject, *, measures_losses: bool) -> dict[str, Subject]:
    """The champion, where the gate compares with it; none where it cannot be measured, which the gate tells."""
    if spec.register_as is None or not spec.register_as.gate.measures_champion:
        return {}
    registry = registry_of(run, spec.tracking)
    champion = champion_of(registry, spec.register_as.name)
    if champion is None or champion.adapter_sha256 == check_folder(run.adapter).sha256:
        return {}
    folder = registry.download(champion, env.cache_dir())
    try:
        return {"champion": subject_beside(base, folder, champion.id, whole=False, measures_losses=measures_losses)}
    except SpecError as error:
        _LOG.warning("the champion is not measured: %s", error)
        return {}


@contextlib.contextmanager
def _tracked(run: Run, spec: FinetuneSpec, data: DataFacts, parent_run_id: str | None) -> Iterator[str | None]:
    """Own the MLflow run while the block works, following the run's records. A dead server stops nothing."""
    if not spec.tracking.mlflow:
        yield None
        return
    run_id = open_run(
        run.path,
        run.name,
        spec.tracking,
        params=_flat(spec.model_dump(mode="json", exclude={"tracking"})),
        tags={"didact.run": str(run.path), **_descent_tags(run)},
        inputs=[source.as_input() for source in data.sources],
        resolved_spec=run.recipe.read_text(encoding="utf-8"),
        parent_run_id=parent_run_id,
    )
    sync = MlflowSync(run.path, run.name, spec.tracking, parent_run_id=parent_run_id)
    sync.start()
    status: FinalStatus = "FAILED"
    tags: dict[str, str] = {}
    try:
        yield run_id
        status = "FINISHED"
    except INTERRUPTS:
        status = "KILLED"
        raise
    except DidactError as error:
        tags = {"didact.last_failure": f"{type(error).__name__}: {error}"}  # a later attempt may overcome it
        raise
    finally:
        patience = _HURRY_SECONDS if status == "KILLED" else _PATIENCE_SECONDS
        if not sync.close(status, patience, tags=tags):
            _LOG.warning("MLflow does not have everything of this run yet; later: didact sync %s", run.path)


def _descent_tags(run: Run) -> dict[str, str]:
    listed = [str(each) for each in descents(run)]
    return {"didact.descends_from": "; ".join(listed)} if listed else {}


def _log_outputs(run: Run, spec: FinetuneSpec) -> None:
    for path in (run.data, run.report, run.report_page, run.report_text):
        if path.is_file():
            log_artifacts(run.path, path, "figures", spec.tracking)


def _flat(values: Any, path: str = "") -> dict[str, str]:
    """Nested settings as dotted MLflow parameters; lists of sources by name."""
    if isinstance(values, dict):
        items = values.items()
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        items = {str(value.get("name", index)): value for index, value in enumerate(values)}.items()
    else:
        return {path: values if isinstance(values, str) else json.dumps(values)}
    return {
        name: text for key, value in items for name, text in _flat(value, f"{path}.{key}" if path else str(key)).items()
    }
