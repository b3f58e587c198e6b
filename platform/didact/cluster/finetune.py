"""The whole road of one run: data, training, evaluation, gate, registration; MLflow is told all along."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from didact import env
from didact.cluster.connect import ray_cluster
from didact.cluster.evaluate import Subject, evaluate_on_ray
from didact.cluster.placement import wait_for_room, worker_resources
from didact.cluster.prepare import PreparedData, prepare_data, write_data_record
from didact.cluster.progress import show_progress
from didact.cluster.train import train_on_ray
from didact.errors import AdapterError
from didact.evaluation import EvalReport, GateResult, judge_gate
from didact.files import read_jsonl
from didact.logs import get_logger
from didact.models import base_fingerprint, verify_adapter
from didact.registry import Lineage, ModelVersion, Registry, model_card
from didact.runs import Run, git_state, start_run
from didact.spec import FinetuneSpec, FullSpec
from didact.tracking import DatasetInput, MlflowSync, log_artifacts, open_run, resolve_uri
from didact.training import TrainResult

_LOG = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What a run left behind."""

    run: Run
    training: TrainResult | None
    """None when an earlier attempt had already finished training."""
    report: EvalReport | None
    gate: GateResult | None
    version: ModelVersion | None
    mlflow_run_id: str | None


def finetune(
    spec: FinetuneSpec,
    runs_dir: Path | None = None,
    *,
    parent_run_id: str | None = None,
    ray_callbacks: list[UserCallback] | None = None,
) -> FinetuneResult:
    """Run a recipe from data to registered adapter; called again after any interruption, it goes on where it was.

    Args:
        spec: the recipe.
        runs_dir: where run folders lie; default `DIDACT_RUNS`.
        parent_run_id: MLflow run this one belongs to, as in a sweep.
        ray_callbacks: of Ray Train.

    Raises:
        DidactError: anything that keeps the recipe from running, with what to change.
    """
    runs_dir = runs_dir or env.runs_dir()
    run = start_run(spec, runs_dir)
    with run.lock():
        prepared = prepare_data(spec, run.quarantine)
        sources = write_data_record(run, spec, prepared)
        with ray_cluster(), _tracked(run, spec, sources, parent_run_id) as mlflow_run_id:
            training = _train(run, spec, prepared, ray_callbacks)
            report = _evaluate(run, spec)
            if spec.tracking.mlflow:
                _log_outputs(run, spec)
            gate, version = _register(run, spec, sources, prepared, report, mlflow_run_id)
    return FinetuneResult(run, training, report, gate, version, mlflow_run_id)


def is_trained(run: Run, spec: FinetuneSpec) -> bool:
    """Whether an earlier attempt has finished training and its result is whole."""
    if isinstance(spec.adapter, FullSpec):
        return (run.adapter / "config.json").is_file()
    try:
        verify_adapter(run.adapter)
    except AdapterError:
        return False
    return True


def _train(
    run: Run, spec: FinetuneSpec, prepared: PreparedData, ray_callbacks: list[UserCallback] | None
) -> TrainResult | None:
    if is_trained(run, spec):
        _LOG.info("run %s is trained already; going on with its evaluation", run.name)
        return None
    resources = worker_resources(spec.placement)
    wait_for_room(spec.placement, resources)
    attempt = sum(1 for _ in read_jsonl(run.path / "provenance.jsonl"))
    with show_progress(run, prepared.num_steps):
        return train_on_ray(run, spec, resources, attempt=attempt, callbacks=ray_callbacks)


def _evaluate(run: Run, spec: FinetuneSpec) -> EvalReport | None:
    if spec.evaluation is None or not spec.evaluation.tasks:
        return None
    recipe = spec if any(source.held_out_rows for source in spec.data.sources) else None
    tasks = tuple(task for task in spec.evaluation.tasks if recipe or task.task != "held_out")
    if not tasks:
        return None
    base = Subject(spec.model, None, spec)
    if isinstance(spec.adapter, FullSpec):
        tuned = Subject(spec.model.model_copy(update={"base": str(run.adapter), "revision": None}), None, spec)
    else:
        tuned = Subject(spec.model, run.adapter, spec)
    evaluation = spec.evaluation.model_copy(update={"tasks": tasks})
    report = evaluate_on_ray(base, tuned, evaluation, worker_resources(spec.placement), tuned_id=run.name)
    report.save(run.report)
    return report


def _register(
    run: Run,
    spec: FinetuneSpec,
    sources: list[dict[str, Any]],
    prepared: PreparedData,
    report: EvalReport | None,
    mlflow_run_id: str | None,
) -> tuple[GateResult | None, ModelVersion | None]:
    if spec.register_as is None:
        return None, None
    gate = judge_gate(report, spec.register_as.gate) if report and spec.register_as.gate else None
    passed = gate is None or gate.passed
    lineage = Lineage(
        recipe=spec.name,
        base=spec.model.base,
        base_fingerprint=base_fingerprint(spec.model),
        method=spec.adapter.method,
        options=spec.adapter.model_dump(mode="json", exclude={"method"}),
        sources=tuple(sources),
        template_contract=prepared.contract.fingerprint,
        base_metrics=report.metrics("base") if report else {},
        adapter_metrics=report.metrics("adapter") if report else {},
        git_commit=(git_state(Path(__file__).parent) or {}).get("commit"),
        run_id=mlflow_run_id,
    )
    registry = Registry(resolve_uri(spec.tracking, run.path.parent), run.path.parent / "mlartifacts")
    if not passed:
        _LOG.warning("the gate keeps alias %r from the new version", spec.register_as.alias)
    version = registry.register(
        spec.register_as.name,
        run.adapter,
        run_id=mlflow_run_id,
        tags={**lineage.tags(), "gate": "passed" if passed else "failed"},
        card=model_card(lineage),
        alias=spec.register_as.alias if passed else None,
    )
    return gate, version


@contextlib.contextmanager
def _tracked(
    run: Run, spec: FinetuneSpec, sources: list[dict[str, Any]], parent_run_id: str | None
) -> Iterator[str | None]:
    """Own the MLflow run while the block works; follow the run's records in the background. A dead server stops nothing."""
    if not spec.tracking.mlflow:
        yield None
        return
    inputs = [
        DatasetInput(
            name=source["name"],
            path=source["path"],
            fingerprint=source["fingerprint"],
            weight=source["weight"],
            rows_used=source["samples_usable"],
            rows_rejected=source["rows_rejected"],
        )
        for source in sources
    ]
    run_id = open_run(
        run.path,
        run.name,
        spec.tracking,
        params=_flat(spec.model_dump(mode="json", exclude={"tracking"})),
        tags={"didact.run": str(run.path)},
        inputs=inputs,
        resolved_spec=run.recipe.read_text(encoding="utf-8"),
        parent_run_id=parent_run_id,
    )
    sync = MlflowSync(run.path, run.name, spec.tracking, parent_run_id=parent_run_id)
    sync.start()
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        if not sync.close(status):
            _LOG.warning("MLflow does not have everything of this run yet; later: didact sync %s", run.path)


def _log_outputs(run: Run, spec: FinetuneSpec) -> None:
    for path in (run.data, run.report):
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
        name: text
        for key, value in items
        for name, text in _flat(value, f"{path}.{key}" if path else str(key)).items()
    }
