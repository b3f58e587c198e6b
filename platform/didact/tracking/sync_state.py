"""What a run folder remembers about MLflow: what is still to be said, and what has been said.

`mlflow_pending.json` holds intentions (parameters, inputs, artifacts, the final status). They are written first and
removed once MLflow has them, so a dead server or a killed process loses nothing. `mlflow.json` says which MLflow run
this folder belongs to and how much of `steps.jsonl` it holds.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from didact import files
from didact.errors import RunError

STATE_FILE = "mlflow.json"
PENDING_FILE = "mlflow_pending.json"


@dataclass(frozen=True, slots=True)
class DatasetInput:
    """One source of the mixture, as recorded in a run's lineage."""

    name: str
    source: str
    """Path, URL, `card:NAME`, `hf:OWNER/NAME` or `reasoning-gym:TASK`, as in the recipe."""
    sha256: str
    """Fingerprint over all rows. MLflow's own digest looks at the first 10,000 rows only."""
    weight: float
    rows_used: int
    rows_rejected: int
    context: str = "training"


@dataclass(frozen=True, slots=True)
class Pending:
    """What MLflow is still to be told about a run."""

    run_key: str
    """Tag that finds the run again when the answer to its creation was lost."""
    created_ms: int
    uri: str
    run_name: str
    parent_run_id: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    inputs: tuple[DatasetInput, ...] = ()
    resolved_spec: str | None = None
    artifacts: dict[str, str] = field(default_factory=dict)
    """Artifact path -> local file or folder."""
    status: str | None = None
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SyncState:
    """What MLflow holds of a run."""

    uri: str
    experiment: str
    run_id: str
    synced_lines: int = 0
    """Lines of `steps.jsonl` that MLflow has."""
    synced_points: int = 0
    """Metric points sent from them."""
    synced_bytes: int = 0
    planned_bytes: int = 0
    """End of the piece being sent: noted before sending, so that after a kill the very same piece is sent again."""
    last_steps: dict[str, int] = field(default_factory=dict)
    """Metric -> its newest step in MLflow. Points that are not newer are replays and stay out."""
    status: str | None = None
    """The last one that MLflow was told: `RUNNING`, `FINISHED`, `FAILED` or `KILLED`."""


def load_state(run_dir: Path) -> SyncState | None:
    """The run's MLflow run, None before the first contact.

    Raises:
        RunError: the file is damaged.
    """
    path = run_dir / STATE_FILE
    if not path.exists():
        return None
    try:
        return SyncState(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path} does not say which MLflow run this folder belongs to ({type(error).__name__}: {error}); put back "
            "the file, or remove it to have a new MLflow run begun"
        ) from error


def mlflow_run_id(run_dir: Path) -> str | None:
    """The MLflow run that a run folder belongs to, None before the first contact."""
    state = load_state(run_dir)
    return state.run_id if state else None


def save_state(run_dir: Path, state: SyncState) -> SyncState:
    """Write the state; returns it."""
    files.write_json(run_dir / STATE_FILE, asdict(state))
    return state


def load_pending(run_dir: Path) -> Pending | None:
    """What is still to be said, None when all is said."""
    path = run_dir / PENDING_FILE
    if not path.exists():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    return Pending(**{**values, "inputs": tuple(DatasetInput(**entry) for entry in values["inputs"])})


def add_pending(run_dir: Path, uri: str, **intentions: Any) -> Pending:
    """Add to what is still to be said; `tags` and `artifacts` are joined, other fields replaced."""
    with _pending_lock(run_dir):
        current = load_pending(run_dir) or Pending(
            run_key=uuid.uuid4().hex, created_ms=time.time_ns() // 1_000_000, uri=uri, run_name=run_dir.name
        )
        for name in ("tags", "artifacts"):
            intentions[name] = {**getattr(current, name), **intentions.get(name, {})}
        added = replace(current, **intentions)
        files.write_json(run_dir / PENDING_FILE, asdict(added))
        return added


def discard_pending(run_dir: Path, said: Pending) -> bool:
    """Remove what has been said; False when more was added meanwhile, which then stays (saying twice is harmless)."""
    with _pending_lock(run_dir):
        if load_pending(run_dir) != said:
            return False
        (run_dir / PENDING_FILE).unlink()
        return True


@contextlib.contextmanager
def sync_lock(run_dir: Path, timeout_seconds: float) -> Iterator[None]:
    """Only one process talks to MLflow about a run.

    Raises:
        TimeoutError: another one does, for longer than `timeout_seconds`.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(run_dir / ".mlflow_sync.lock", timeout=timeout_seconds):
        yield


def _pending_lock(run_dir: Path) -> FileLock:
    run_dir.mkdir(parents=True, exist_ok=True)
    return FileLock(run_dir / ".mlflow_pending.lock", timeout=10)
