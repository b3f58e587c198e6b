"""Numbers out: the run's own JSON lines always, MLflow when it answers. Importing this does not import MLflow.

    loop -> JsonLinesTracker -> steps.jsonl -> MlflowSync (or sync_run later) -> MLflow
    driver -> open_run / log_artifacts -> mlflow_pending.json -> MLflow

Example:
    >>> from pathlib import Path
    >>> from didact.tracking import JsonLinesTracker, effective_records
    >>> tracker = JsonLinesTracker(Path("runs/demo/steps.jsonl"), attempt=1)
    >>> tracker.log(1, {"train/loss": 2.5}, loss_hex=(2.5).hex())
    >>> effective_records(Path("runs/demo/steps.jsonl"))[-1].metrics
    {'train/loss': 2.5}
"""

from didact.tracking.mlflow_run import log_artifacts, open_run
from didact.tracking.mlflow_sync import FinalStatus, MlflowSync, SyncResult, sync_run
from didact.tracking.records import (
    JsonLinesTracker,
    StepRecord,
    complete_size,
    effective_records,
    last_attempt,
)
from didact.tracking.sync_state import DatasetInput, load_state, mlflow_run_id
from didact.tracking.uris import default_uri, resolve_uri

__all__ = [
    "DatasetInput",
    "FinalStatus",
    "JsonLinesTracker",
    "MlflowSync",
    "StepRecord",
    "SyncResult",
    "complete_size",
    "default_uri",
    "effective_records",
    "last_attempt",
    "load_state",
    "log_artifacts",
    "mlflow_run_id",
    "open_run",
    "resolve_uri",
    "sync_run",
]
