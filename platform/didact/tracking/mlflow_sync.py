"""Keeping MLflow up to date with `steps.jsonl`, while MLflow comes and goes.

Which points reach MLflow. MLflow cannot delete a point, and a restarted attempt logs some steps again. So a point that
has reached MLflow stands, and a later attempt's value for the same metric and step stays out (resumed runs repeat their
losses exactly; only timings differ). What has not been sent yet is taken from the effective lineage: a run caught up
after the fact holds exactly `effective_records`. In both cases a metric has one point per effective step. The exception
is an attempt that was followed live and got further than all attempts after it: its last points remain.
Timestamps are those of `steps.jsonl`, and the piece being sent is noted first, so a repeated send stores nothing twice.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from didact import env
from didact.errors import TrackingError
from didact.logs import get_logger
from didact.spec import TrackingSpec
from didact.tracking import mlflow_tracker
from didact.tracking.mlflow_tracker import Point
from didact.tracking.moved import database_of, never_met
from didact.tracking.records import complete_size, effective, read_records
from didact.tracking.sync_state import (
    STATE_FILE,
    Pending,
    SyncState,
    add_pending,
    discard_pending,
    load_pending,
    load_state,
    mlflow_run_id,
    save_state,
    sync_lock,
)
from didact.tracking.uris import resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

STEPS_FILE = "steps.jsonl"
FinalStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How an MLflow run ended."""
_LONGEST_WAIT_SECONDS = 30.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")
"""Of a server that answers; what is refused may be due to a run that was deleted."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a catch-up did."""

    run_id: str | None
    """The MLflow run, None when there is none yet."""
    num_points: int
    """Metric points sent by this call."""
    complete: bool
    """MLflow has everything that the run folder holds."""
    problem: str | None = None
    """Why not, in MLflow's words."""
    deleted: bool = False
    """Because the run or its experiment was deleted; MLflow itself answers."""


def sync_run(run_dir: Path, tracking: TrackingSpec) -> SyncResult:
    """Tell MLflow all it has missed about a run, once, here and now. Safe to repeat and beside a running job.

    The MLflow run is that of `run_dir/mlflow.json`. When its server has moved, set `tracking.uri` to the new address.

    Raises:
        SpecError: `tracking.uri` is not an address.
    """
    sent_before = _points_sent(run_dir)
    complete, problem, deleted = False, None, False
    try:
        complete = catch_up(run_dir, tracking)
    except TrackingError as error:
        problem, deleted = str(error), True
    except mlflow_tracker.failures() as error:
        problem = f"{type(error).__name__}: {error}"
    return SyncResult(mlflow_run_id(run_dir), _points_sent(run_dir) - sent_before, complete, problem, deleted)


class MlflowSync:
    """Follows a run's `steps.jsonl` from a background thread; training never waits for MLflow and never fails with it.

    Example:
        >>> sync = MlflowSync(run_dir, "my-run", TrackingSpec())
        >>> sync.start()
        >>> sync.close("FINISHED")
        True
    """

    def __init__(
        self,
        run_dir: Path,
        run_name: str,
        tracking: TrackingSpec,
        parent_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        poll_seconds: float = 2.0,
    ) -> None:
        """A later attempt with the same `run_dir` continues the same MLflow run. With `mlflow: false` nothing is done.

        Raises:
            SpecError: `tracking.uri` is not an address.
        """
        self._run_dir = run_dir
        self._tracking = tracking
        self._poll_seconds = poll_seconds
        self._facts: dict[str, Any] = {"run_name": run_name, "tags": dict(tags or {})}
        if parent_run_id is not None:
            self._facts["parent_run_id"] = parent_run_id
        self._uri = resolve_uri(tracking, env.runs_dir())
        self._closing = threading.Event()
        self._complete = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow; returns at once."""
        if self._tracking.mlflow:
            add_pending(self._run_dir, self._uri, **self._facts, status="RUNNING", ended_ms=None)
            self._begin()

    def close(
        self,
        status: FinalStatus,
        timeout_seconds: float = 20.0,
        tags: Mapping[str, str] | None = None,
    ) -> bool:
        """Send the rest, the final status and `tags` about it, for at most `timeout_seconds`.

        Returns:
            Whether MLflow has everything. If not, nothing is lost: `sync_run` continues from here.
        """
        if not self._tracking.mlflow:
            return True
        ended_ms = time.time_ns() // 1_000_000
        facts = {**self._facts, "tags": {**self._facts["tags"], **(tags or {})}}
        add_pending(self._run_dir, self._uri, **facts, status=status, ended_ms=ended_ms)
        self._closing.set()
        thread = self._thread or self._begin()
        thread.join(timeout_seconds)
        return self._complete

    def _begin(self) -> threading.Thread:
        # A daemon, so that a frozen server cannot keep the process from ending.
        self._thread = threading.Thread(target=self._follow, name=f"mlflow-sync-{self._run_dir.name}", daemon=True)
        self._thread.start()
        return self._thread

    def _follow(self) -> None:
        failed = 0
        while True:
            closing = self._closing.is_set()
            result = sync_run(self._run_dir, self._tracking)
            if result.deleted and not failed:
                _log.warning("MLflow records nothing of this run, while training goes on: %s", result.problem)
            elif result.problem and not failed:
                _log.warning("MLflow does not answer; training goes on and catches up later (%s)", result.problem)
            elif failed and not result.problem:
                _log.warning("MLflow answers again; run %s is caught up", result.run_id)
            failed = failed + 1 if result.problem else 0
            if closing:
                self._complete = result.complete
                return
            self._closing.wait(min(_LONGEST_WAIT_SECONDS, self._poll_seconds * 2**failed))


def catch_up(run_dir: Path, tracking: TrackingSpec, wait_seconds: float = 10.0) -> bool:
    """Say what is pending and send new lines; returns whether nothing is left. Raises what MLflow raises."""
    with sync_lock(run_dir, wait_seconds):
        try:
            return _say_and_send(run_dir, tracking)
        except mlflow_tracker.failures() as error:
            state = load_state(run_dir)
            if state and getattr(error, "error_code", None) in _REFUSALS:
                client = mlflow_tracker.connect(state.uri)
                mlflow_tracker.check_run(client, state.uri, state.run_id, run_dir / STATE_FILE)
            raise


def _say_and_send(run_dir: Path, tracking: TrackingSpec) -> bool:
    state, pending = load_state(run_dir), load_pending(run_dir)
    if state is None:
        pending = pending or add_pending(run_dir, resolve_uri(tracking, env.runs_dir()))
        state = _first_contact(run_dir, tracking, pending)
    elif tracking.uri is not None and tracking.uri != state.uri:
        state = _at_new_address(run_dir, resolve_uri(tracking, env.runs_dir()), state)
    else:
        state = _where_it_is(run_dir, state)
    client = mlflow_tracker.connect(state.uri)
    state = _send_lines(run_dir / STEPS_FILE, client, state)
    all_said = True
    if pending:
        mlflow_tracker.describe_run(client, state.run_id, pending)
        if pending.status:
            mlflow_tracker.set_status(client, state.run_id, pending.status, pending.ended_ms)
            state = save_state(run_dir, replace(state, status=pending.status))
        all_said = discard_pending(run_dir, pending)
    return all_said and state.synced_bytes == complete_size(run_dir / STEPS_FILE)


def _first_contact(run_dir: Path, tracking: TrackingSpec, pending: Pending) -> SyncState:
    # A worker may lack the driver's environment, so what the driver found is asked last but before any default.
    asked_again = tracking.uri or env.mlflow_uri() or never_met(run_dir, pending.uri)
    uri = resolve_uri(tracking, env.runs_dir()) if asked_again else pending.uri
    client = mlflow_tracker.connect(uri)
    experiment = mlflow_tracker.experiment_id(client, uri, tracking.experiment)
    run_id = mlflow_tracker.find_or_create_run(client, experiment, pending)
    return save_state(run_dir, SyncState(uri, tracking.experiment, run_id))


def _at_new_address(run_dir: Path, uri: str, state: SyncState) -> SyncState:
    mlflow_tracker.connect(uri).get_run(state.run_id)  # raises when the run does not live there
    return save_state(run_dir, replace(state, uri=uri))


def _where_it_is(run_dir: Path, state: SyncState) -> SyncState:
    uri = database_of(run_dir, state.uri, state.run_id)
    return state if uri == state.uri else save_state(run_dir, replace(state, uri=uri))


def _send_lines(steps: Path, client: "MlflowClient", state: SyncState) -> SyncState:
    while True:
        interrupted = state.planned_bytes > state.synced_bytes
        end = state.planned_bytes if interrupted else complete_size(steps)
        if end <= state.synced_bytes:
            return state
        state = save_state(steps.parent, replace(state, planned_bytes=end))
        lines = list(read_records(steps, state.synced_bytes, end))
        points = [
            Point(key, value, record.time_ms, record.step)
            for record in effective(lines)
            for key, value in record.metrics.items()
            if record.step > state.last_steps.get(key, -1)
        ]
        mlflow_tracker.send_points(client, state.run_id, points)
        newest = {point.key: point.step for point in points}  # points come ordered by step
        state = replace(
            state,
            synced_bytes=end,
            synced_lines=state.synced_lines + len(lines),
            synced_points=state.synced_points + len(points),
            last_steps={**state.last_steps, **newest},
        )
        save_state(steps.parent, state)


def _points_sent(run_dir: Path) -> int:
    state = load_state(run_dir)
    return state.synced_points if state else 0
