"""Every word spoken to MLflow by the tracking room, through a client with an explicit address.

Nothing here sets MLflow's process-wide address or active run, so it is safe in Ray workers and beside user code. Every
call may be repeated: a run is found again by its key, parameters are compared first, and a metric point with the same
step, value and time is stored once (they are the primary key of MLflow's table).
"""

import contextlib
import functools
import json
import logging
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock

from didact import env
from didact.addresses import check_host
from didact.errors import TrackingError
from didact.logs import get_logger
from didact.tracking.moved import settle_artifacts
from didact.tracking.sync_state import DatasetInput, Pending
from didact.tracking.uris import artifact_root, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_KEY_TAG = "didact.run_key"
_METRICS_PER_CALL = 1000
_PARAMS_PER_CALL = 100
_LONGEST_PARAM = 6000
_LONGEST_TAG = 5000
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's defaults keep a caller waiting for minutes on a dead server.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric."""

    key: str
    value: float
    time_ms: int
    step: int


@functools.lru_cache(maxsize=16)
def connect(uri: str) -> "MlflowClient":
    """A client of the server or database at `uri`, which must be absolute; servers are not contacted yet.

    A sqlite file is made on first use, in WAL mode: five times the throughput with several writers, and readers do not
    block. A lock keeps processes that start together from creating its tables at once. Keep the file on a local disk;
    several machines need a server.

    Raises:
        TrackingError: a server at a link-local or metadata address, which a recipe may name and nobody means.
    """
    _check_address(uri)
    _set_environment()
    # Every refused try would be a line of its own; `MlflowSync` says once what they say.
    get_logger("urllib3.connectionpool").addFilter(_is_not_about_mlflow)
    from mlflow import MlflowClient

    database = sqlite_file(uri)
    if database is None:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    get_logger("mlflow.store.db.utils").setLevel("WARNING")
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f".{database.name}.lock"), timeout=120):
        if not database.exists():
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        else:
            settle_artifacts(database)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_address(uri: str) -> None:
    if not uri.startswith(("http://", "https://")):
        return
    try:
        check_host(urlsplit(uri).hostname or "")
    except ValueError as error:
        raise TrackingError(f"tracking.uri: found {uri}; {error}") from None


def failures() -> tuple[type[Exception], ...]:
    """What a dead, slow or refusing MLflow raises."""
    _set_environment()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, sqlite3.Error, OSError, TrackingError


def check_run(client: "MlflowClient", uri: str, run_id: str, state_file: Path) -> None:
    """Nothing, where MLflow has the run, or cannot be asked.

    Raises:
        TrackingError: the run was deleted.
    """
    from mlflow.exceptions import MlflowException

    advice = f"or remove {state_file}: the next attempt then makes a new one"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(
                f"MLflow at {uri} has no run {run_id} any more; set tracking.uri to where it is, {advice}"
            ) from error
        return
    if run.info.lifecycle_stage == "deleted":
        raise TrackingError(
            f"MLflow run {run_id} was deleted; restore it with `MLFLOW_TRACKING_URI={uri} mlflow runs restore --run-id "
            f"{run_id}`, {advice}"
        )


def experiment_id(client: "MlflowClient", uri: str, name: str, root: Path | None = None) -> str:
    """The experiment of that name, created when there is none (artifacts under `root`, see `uris.artifact_root`).

    Raises:
        TrackingError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        chosen = artifact_root(uri)
        root = chosen and (root or chosen)  # a folder of this machine means nothing to a server
        try:
            return str(client.create_experiment(name, artifact_location=str(root) if root else None))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another process was faster
    if found.lifecycle_stage == "deleted":
        number = found.experiment_id
        raise TrackingError(
            f"the MLflow experiment {name!r} was deleted; restore it with `MLFLOW_TRACKING_URI={uri} mlflow "
            f"experiments restore --experiment-id {number}`, or set tracking.experiment to another name"
        )
    return str(found.experiment_id)


def find_or_create_run(client: "MlflowClient", experiment: str, pending: Pending) -> str:
    """The run with this key in the experiment of that id; created when there is none."""
    known = client.search_runs([experiment], f"tags.`{RUN_KEY_TAG}` = '{pending.run_key}'", max_results=1)
    if known:
        return str(known[0].info.run_id)
    tags = {**pending.tags, RUN_KEY_TAG: pending.run_key}
    if pending.parent_run_id:
        tags["mlflow.parentRunId"] = pending.parent_run_id
    run = client.create_run(experiment, start_time=pending.created_ms, tags=tags, run_name=pending.run_name)
    return str(run.info.run_id)


def describe_run(client: "MlflowClient", run_id: str, pending: Pending) -> None:
    """Log parameters, tags, inputs, the resolved spec and artifacts.

    MLflow never changes a parameter. One that differs in a later attempt (placement may) becomes the tag
    `changed.<parameter>`; the artifact `config/recipe.json` always holds the newest spec.
    """
    if pending.params or pending.tags:
        _log_params(client, run_id, pending.params, pending.tags)
    if pending.inputs:
        client.log_inputs(run_id, datasets=[_dataset_input(entry) for entry in pending.inputs])
    if pending.resolved_spec is not None:
        client.log_text(run_id, pending.resolved_spec, "config/recipe.json")
    for path, local in pending.artifacts.items():
        _log_files(client, run_id, Path(local), path)


def send_points(client: "MlflowClient", run_id: str, points: Sequence[Point]) -> None:
    """Store metric points, a thousand a call."""
    from mlflow.entities import Metric

    metrics = [Metric(metric_name(point.key), point.value, point.time_ms, point.step) for point in points]
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_CALL], synchronous=True)


def set_status(client: "MlflowClient", run_id: str, status: str, ended_ms: int | None) -> None:
    """`RUNNING`, or one of `FINISHED`, `FAILED`, `KILLED` with the time it ended."""
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status=status, end_time=ended_ms)


def metric_name(key: str) -> str:
    """`key` with what MLflow refuses in names replaced by `_`."""
    return _NOT_IN_NAMES.sub("_", key)


def _set_environment() -> None:
    """Before MLflow is imported: it reads some of these then."""
    for name, value in _ENVIRONMENT.items():
        env.set_default(name, value)


def _is_not_about_mlflow(record: logging.LogRecord) -> bool:
    return not (record.levelno == logging.WARNING and "/mlflow" in record.getMessage())


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    wanted = {metric_name(key): value[:_LONGEST_PARAM] for key, value in params.items()}
    present = client.get_run(run_id).data.params
    changed = {f"changed.{key}": value for key, value in wanted.items() if present.get(key, value) != value}
    new_params = [Param(key, value) for key, value in wanted.items() if key not in present]
    new_tags = [RunTag(key, value[:_LONGEST_TAG]) for key, value in {**tags, **changed}.items()]
    for start in range(0, max(len(new_params), len(new_tags)), _PARAMS_PER_CALL):
        piece = slice(start, start + _PARAMS_PER_CALL)
        client.log_batch(run_id, params=new_params[piece], tags=new_tags[piece], synchronous=True)


def _dataset_input(entry: DatasetInput) -> object:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    scheme, _, rest = entry.source.partition(":")
    of_urls = "http" if scheme == "https" else scheme  # as MLflow calls its own sources
    by_name = {"hf": "hugging_face", "reasoning-gym": "reasoning_gym", "card": "card"}
    source_type = of_urls if rest.startswith("//") else by_name.get(scheme, "local")
    place = {"url" if source_type == "http" else "uri": entry.source}
    tags = {
        "mlflow.data.context": entry.context,
        "mixture.weight": repr(entry.weight),
        "rows_used": str(entry.rows_used),
        "rows_rejected": str(entry.rows_rejected),
        "sha256": entry.sha256,
    }
    # MLflow holds at most 36 characters of a digest; the tag has it whole.
    dataset = Dataset(entry.name, entry.sha256[:36], source_type, json.dumps(place))
    return MlflowDatasetInput(dataset, [InputTag(key, value) for key, value in tags.items()])


def _log_files(client: "MlflowClient", run_id: str, local: Path, artifact_path: str) -> None:
    if local.is_dir():
        client.log_artifacts(run_id, str(local), artifact_path)
    elif local.exists():
        client.log_artifact(run_id, str(local), artifact_path)
    else:
        _log.warning("artifact %s of MLflow run %s is gone before it could be uploaded", local, run_id)
