"""What the driver tells MLflow about a run: who it is, what goes in, what comes out.

Everything is written to the run folder first and then said, so MLflow may be down at any moment; the next
contact (`MlflowSync`, `sync_run`, or another call here) says it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from didact import env
from didact.logs import get_logger
from didact.spec import TrackingSpec
from didact.tracking import mlflow_tracker
from didact.tracking.mlflow_sync import catch_up
from didact.tracking.sync_state import DatasetInput, add_pending, mlflow_run_id
from didact.tracking.uris import resolve_uri

_log = get_logger(__name__)


def open_run(
    run_dir: Path,
    run_name: str,
    tracking: TrackingSpec,
    params: Mapping[str, str],
    tags: Mapping[str, str],
    inputs: Sequence[DatasetInput],
    resolved_spec: str,
    parent_run_id: str | None = None,
) -> str | None:
    """Create the folder's MLflow run, or continue it, and log what describes it.

    Args:
        run_dir: the run folder; `mlflow.json` in it names the MLflow run from the first contact on.
        run_name: name shown by MLflow.
        tracking: where; without `tracking.uri` see `resolve_uri` with `env.runs_dir()`.
        params: the flattened spec. Values are cut at MLflow's 6000 characters; the artifact has them whole.
        tags: run tags.
        inputs: the mixture's sources.
        resolved_spec: JSON text, kept as the artifact `config/recipe.json`.
        parent_run_id: MLflow run of the sweep.

    Returns:
        The MLflow run id, also on a later attempt without contact; None with `mlflow: false` or before first contact.

    Raises:
        SpecError: `tracking.uri` is not an address.
    """
    if not tracking.mlflow:
        return None
    add_pending(
        run_dir,
        resolve_uri(tracking, env.runs_dir()),
        run_name=run_name,
        parent_run_id=parent_run_id,
        tags=dict(tags),
        params=dict(params),
        inputs=tuple(inputs),
        resolved_spec=resolved_spec,
        status="RUNNING",
        ended_ms=None,
    )
    _say(run_dir, tracking, f"run {run_name!r}")
    return mlflow_run_id(run_dir)


def log_artifacts(run_dir: Path, local: Path, artifact_path: str, tracking: TrackingSpec) -> bool:
    """Upload a file or folder to the run's artifacts, under the folder `artifact_path`.

    Returns:
        Whether MLflow has it. If not, it is uploaded at the next contact from the same local path.

    Raises:
        FileNotFoundError: there is no `local`.
    """
    if not local.exists():
        raise FileNotFoundError(f"no file or folder {local} to log as artifact {artifact_path!r}")
    if not tracking.mlflow:
        return False
    add_pending(run_dir, resolve_uri(tracking, env.runs_dir()), artifacts={artifact_path: str(local.absolute())})
    return _say(run_dir, tracking, f"artifact {artifact_path!r}")


def _say(run_dir: Path, tracking: TrackingSpec, what: str) -> bool:
    try:
        catch_up(run_dir, tracking)
    except mlflow_tracker.failures() as error:
        _log.warning("MLflow did not take %s; kept in %s for the next contact (%s)", what, run_dir, error)
        return False
    return True
