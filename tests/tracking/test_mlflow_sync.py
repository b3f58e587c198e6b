"""MLflow ends up with one point per metric and effective step, whatever happens on the way."""

import contextlib
import json
import logging
import math
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from didact.spec import TrackingSpec
from didact.tracking import (
    DatasetInput,
    JsonLinesTracker,
    MlflowSync,
    default_uri,
    effective_records,
    log_artifacts,
    open_run,
    sync_run,
)
from didact.tracking.mlflow_tracker import connect
from didact.tracking.sync_state import SyncState, add_pending, load_pending, load_state, save_state
from didact.tracking.uris import sqlite_file
from tests.fakes.disks import small_disk

SOURCES = (
    DatasetInput("alpaca", "data/alpaca.json", "a" * 64, 0.7, 100, 3),
    DatasetInput("gsm8k", "hf:openai/gsm8k:main", "b" * 64, 0.3, 40, 0),
    DatasetInput("web", "https://example.org/a.jsonl", "c" * 64, 0.1, 5, 0),
    DatasetInput("bucket", "s3://data/rows/", "d" * 64, 0.1, 5, 0),
)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingSpec:
    """One sqlite database for the module: its first use takes seconds."""
    return TrackingSpec(uri=default_uri(tmp_path_factory.mktemp("mlflow")))


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> TrackingSpec:
    """An address where nothing listens; one try, to fail at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return TrackingSpec(uri=f"http://127.0.0.1:{unused.getsockname()[1]}")


@pytest.fixture
def frozen() -> Iterator[TrackingSpec]:
    """A server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield TrackingSpec(uri=f"http://127.0.0.1:{server.getsockname()[1]}")


def log_steps(run_dir: Path, attempt: int, steps: range, offset: float = 0.0) -> None:
    tracker = JsonLinesTracker(run_dir / "steps.jsonl", attempt)
    for step in steps:
        tracker.log(step, {"train/loss": 10.0 / step + offset, "train/step_seconds": attempt + step / 1000})


def stored(tracking: TrackingSpec, run_dir: Path, key: str) -> list[tuple[int, float, int]]:
    state = load_state(run_dir)
    assert state is not None
    history = connect(tracking.uri or "").get_metric_history(state.run_id, key)
    return sorted((point.step, point.value, point.timestamp) for point in history)


def expected(run_dir: Path, key: str) -> list[tuple[int, float, int]]:
    records = effective_records(run_dir / "steps.jsonl")
    return [(record.step, record.metrics[key], record.time_ms) for record in records if key in record.metrics]


def describe(run_dir: Path, tracking: TrackingSpec, **changes: Any) -> str | None:
    params = {"training.steps": "8", "data.sources[0].path": "x" * 7000, **changes}
    return open_run(run_dir, "a run", tracking, params, {"recipe": "demo"}, SOURCES, '{"name": "demo"}')


def test_a_followed_run_is_complete_after_close(tracking: TrackingSpec, tmp_path: Path) -> None:
    sync = MlflowSync(tmp_path, "followed", tracking, tags={"recipe": "demo"})
    sync.start()
    log_steps(tmp_path, 1, range(1, 9))
    assert sync.close("FINISHED", timeout_seconds=60)
    assert stored(tracking, tmp_path, "train/loss") == expected(tmp_path, "train/loss")
    state = load_state(tmp_path)
    assert state is not None
    assert (state.synced_lines, load_pending(tmp_path)) == (8, None)
    run = connect(state.uri).get_run(state.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["recipe"]) == ("FINISHED", "followed", "demo")


def test_a_restart_seen_live_leaves_one_point_per_step(tracking: TrackingSpec, tmp_path: Path) -> None:
    log_steps(tmp_path, 1, range(1, 7))
    first = sync_run(tmp_path, tracking)
    log_steps(tmp_path, 2, range(4, 11))
    second = sync_run(tmp_path, tracking)
    assert (first.complete, second.complete, first.run_id) == (True, True, second.run_id)
    steps = [record.step for record in effective_records(tmp_path / "steps.jsonl")]
    for key in ("train/loss", "train/step_seconds"):
        assert [step for step, _, _ in stored(tracking, tmp_path, key)] == steps
    losses = [value for _, value, _ in stored(tracking, tmp_path, "train/loss")]
    assert losses == [value for _, value, _ in expected(tmp_path, "train/loss")]


def test_a_run_caught_up_later_holds_exactly_the_effective_lineage(tracking: TrackingSpec, tmp_path: Path) -> None:
    log_steps(tmp_path, 1, range(1, 9))
    log_steps(tmp_path, 2, range(4, 7), offset=0.25)
    assert sync_run(tmp_path, tracking).complete
    for key in ("train/loss", "train/step_seconds"):
        assert stored(tracking, tmp_path, key) == expected(tmp_path, key)
        assert len(stored(tracking, tmp_path, key)) == 6


def test_a_piece_sent_before_a_kill_is_sent_again_unchanged(tracking: TrackingSpec, tmp_path: Path) -> None:
    log_steps(tmp_path, 1, range(1, 6))
    assert sync_run(tmp_path, tracking).complete
    sent = load_state(tmp_path)
    assert sent is not None
    # As left by a process killed between sending the piece and noting that it was sent.
    save_state(tmp_path, SyncState(sent.uri, sent.experiment, sent.run_id, planned_bytes=sent.synced_bytes))
    log_steps(tmp_path, 2, range(3, 9))
    assert sync_run(tmp_path, tracking).complete
    steps = [step for step, _, _ in stored(tracking, tmp_path, "train/step_seconds")]
    assert steps == list(range(1, 9))


def test_syncing_again_sends_nothing(tracking: TrackingSpec, tmp_path: Path) -> None:
    log_steps(tmp_path, 1, range(1, 4))
    assert sync_run(tmp_path, tracking).num_points == 6
    assert sync_run(tmp_path, tracking).num_points == 0


def test_more_points_than_one_call_takes_and_odd_names_and_values(tracking: TrackingSpec, tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", 1)
    for step in range(1, 1102):
        tracker.log(step, {"train/loss": math.nan if step == 7 else 1.0})
    tracker.log(1101, {"eval/task[0]/exact=match": 0.5})
    assert sync_run(tmp_path, tracking).complete
    losses = stored(tracking, tmp_path, "train/loss")
    assert len(losses) == 1101
    assert [step for step, value, _ in losses if math.isnan(value)] == [7]
    assert [value for _, value, _ in stored(tracking, tmp_path, "eval/task_0_/exact_match")] == [0.5]


def test_the_driver_describes_the_run(tracking: TrackingSpec, tmp_path: Path) -> None:
    run_id = describe(tmp_path / "run", tracking)
    assert run_id is not None
    client = connect(tracking.uri or "")
    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params["training.steps"] == "8"
    assert len(run.data.params["data.sources_0_.path"]) == 6000
    inputs = {entry.dataset.name: entry for entry in run.inputs.dataset_inputs}
    assert inputs["gsm8k"].dataset.digest == "b" * 36
    kinds = {name: (entry.dataset.source_type, *json.loads(entry.dataset.source)) for name, entry in inputs.items()}
    assert kinds == {
        "alpaca": ("local", "uri"),
        "gsm8k": ("hugging_face", "uri"),
        "web": ("http", "url"),
        "bucket": ("s3", "uri"),
    }
    tags = {tag.key: tag.value for tag in inputs["alpaca"].tags}
    assert tags["sha256"] == "a" * 64
    assert (tags["mixture.weight"], tags["rows_used"], tags["rows_rejected"]) == ("0.7", "100", "3")
    assert Path(run.info.artifact_uri).is_relative_to(Path((tracking.uri or "").removeprefix("sqlite:///")).parent)
    recipe = client.download_artifacts(run_id, "config/recipe.json", str(tmp_path))
    assert json.loads(Path(recipe).read_text()) == {"name": "demo"}


def test_a_later_attempt_continues_the_same_run(tracking: TrackingSpec, tmp_path: Path) -> None:
    first = describe(tmp_path, tracking)
    assert MlflowSync(tmp_path, "a run", tracking).close("FAILED", timeout_seconds=60)
    second = describe(tmp_path, tracking, **{"placement.num_workers": "4", "training.steps": "9"})
    assert first == second
    run = connect(tracking.uri or "").get_run(first)
    assert run.info.status == "RUNNING"
    assert (run.data.params["training.steps"], run.data.tags["changed.training.steps"]) == ("8", "9")
    assert run.data.params["placement.num_workers"] == "4"
    assert len(run.inputs.dataset_inputs) == len(SOURCES)


def test_a_trial_names_its_parent(tracking: TrackingSpec, tmp_path: Path) -> None:
    parent = open_run(tmp_path / "sweep", "sweep", tracking, {}, {}, (), "{}")
    child = open_run(tmp_path / "trial", "trial", tracking, {}, {}, (), "{}", parent_run_id=parent)
    assert connect(tracking.uri or "").get_run(child).data.tags["mlflow.parentRunId"] == parent


def test_a_run_whose_creation_was_not_acknowledged_is_found_again(tracking: TrackingSpec, tmp_path: Path) -> None:
    run_id = describe(tmp_path, tracking)
    key = connect(tracking.uri or "").get_run(run_id).data.tags["didact.run_key"]
    # As left by a process whose request arrived, but not the answer to it.
    add_pending(tmp_path / "unanswered", tracking.uri or "", run_key=key)
    assert sync_run(tmp_path / "unanswered", tracking).run_id == run_id


def test_artifacts_are_uploaded(tracking: TrackingSpec, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    assert log_artifacts(tmp_path / "run", tmp_path / "report.json", "evaluation", tracking)
    state = load_state(tmp_path / "run")
    assert state is not None
    listed = connect(state.uri).list_artifacts(state.run_id, "evaluation")
    assert [entry.path for entry in listed] == ["evaluation/report.json"]
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        log_artifacts(tmp_path / "run", tmp_path / "gone.json", "evaluation", tracking)


def test_a_server_dead_from_the_start_is_caught_up(
    tracking: TrackingSpec, refused: TrackingSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = tmp_path / "run"
    (tmp_path / "report.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert describe(run_dir, refused) is None
        sync = MlflowSync(run_dir, "a run", refused, poll_seconds=0.01)
        sync.start()
        log_steps(run_dir, 1, range(1, 6))
        assert not sync.close("FINISHED", timeout_seconds=60)
        assert not log_artifacts(run_dir, tmp_path / "report.json", "evaluation", refused)
    assert sum("MLflow does not answer" in message for message in caplog.messages) == 1
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]
    assert load_state(run_dir) is None
    ended_ms = json.loads((run_dir / "mlflow_pending.json").read_text())["ended_ms"]

    result = sync_run(run_dir, tracking)
    assert (result.complete, result.problem, result.num_points) == (True, None, 10)
    run = connect(tracking.uri or "").get_run(result.run_id)
    assert (run.info.status, run.info.end_time, run.data.params["training.steps"]) == ("FINISHED", ended_ms, "8")
    assert len(run.inputs.dataset_inputs) == len(SOURCES)
    assert {entry.path for entry in connect(tracking.uri or "").list_artifacts(result.run_id)} == {
        "config",
        "evaluation",
    }


def test_a_server_that_comes_back_is_noticed_once(
    tracking: TrackingSpec, refused: TrackingSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = describe(tmp_path, tracking)
    state = load_state(tmp_path)
    assert state is not None
    save_state(tmp_path, SyncState(refused.uri or "", state.experiment, state.run_id))
    log_steps(tmp_path, 1, range(1, 4))
    failing = threading.Event()

    class Noticed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "does not answer" in record.getMessage():
                failing.set()

    noticed = Noticed()
    logger = logging.getLogger("didact.tracking.mlflow_sync")
    logger.addHandler(noticed)
    try:
        with caplog.at_level(logging.WARNING, logger="didact"):
            sync = MlflowSync(tmp_path, "a run", TrackingSpec(), poll_seconds=0.01)
            sync.start()
            assert failing.wait(60)
            save_state(tmp_path, state)
            assert sync.close("FINISHED", timeout_seconds=60)
    finally:
        logger.removeHandler(noticed)
    assert sum("does not answer" in message for message in caplog.messages) == 1
    assert sum("answers again" in message for message in caplog.messages) == 1
    assert len(stored(tracking, tmp_path, "train/loss")) == 3
    assert connect(tracking.uri or "").get_run(run_id).info.status == "FINISHED"


def test_a_frozen_server_cannot_hold_the_end_of_training(frozen: TrackingSpec, tmp_path: Path) -> None:
    sync = MlflowSync(tmp_path, "frozen", frozen)
    sync.start()
    log_steps(tmp_path, 1, range(1, 3))
    began = time.monotonic()
    assert not sync.close("KILLED", timeout_seconds=0.5)
    assert time.monotonic() - began < 3
    pending = load_pending(tmp_path)
    assert pending is not None
    assert pending.status == "KILLED"


def test_a_server_that_moved_keeps_the_run_and_a_wrong_address_is_reported(
    tracking: TrackingSpec, tmp_path: Path
) -> None:
    log_steps(tmp_path, 1, range(1, 3))
    before = sync_run(tmp_path, tracking)
    state = load_state(tmp_path)
    assert state is not None
    save_state(tmp_path, SyncState("http://127.0.0.1:9", state.experiment, "f" * 32))
    wrong = sync_run(tmp_path, tracking)
    assert not wrong.complete
    assert "f" * 32 in (wrong.problem or "")
    save_state(tmp_path, SyncState("http://127.0.0.1:9", state.experiment, state.run_id))
    assert sync_run(tmp_path, tracking).run_id == before.run_id
    moved = load_state(tmp_path)
    assert moved is not None
    assert moved.uri == tracking.uri


def test_with_mlflow_off_nothing_is_written(tmp_path: Path) -> None:
    off = TrackingSpec(mlflow=False)
    assert describe(tmp_path / "run", off) is None
    sync = MlflowSync(tmp_path / "run", "off", off)
    sync.start()
    assert sync.close("FINISHED")
    assert not (tmp_path / "run").exists()


def test_the_database_is_in_wal_mode(tracking: TrackingSpec) -> None:
    connect(tracking.uri or "")
    with sqlite3.connect((tracking.uri or "").removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.fault("C5")
def test_a_full_disk_under_the_database_is_caught_up(tracking: TrackingSpec, tmp_path: Path) -> None:
    filled = sqlite_file(tracking.uri or "")
    assert filled is not None
    with small_disk(tmp_path / "disk", mebibytes=12) as disk:
        with contextlib.closing(sqlite3.connect(filled)) as database:  # making its tables anew takes seconds
            database.execute("VACUUM INTO ?", (str(disk.path / "mlflow.db"),))
        there = TrackingSpec(uri=f"sqlite:///{disk.path}/mlflow.db")
        run_dir = tmp_path / "run"
        log_steps(run_dir, 1, range(1, 3))
        assert sync_run(run_dir, there).complete
        disk.fill()
        log_steps(run_dir, 1, range(3, 1500))
        refused = sync_run(run_dir, there)
        assert not refused.complete and "full" in (refused.problem or "")
        disk.make_room()
        assert sync_run(run_dir, there).complete
        assert stored(there, run_dir, "train/loss") == expected(run_dir, "train/loss")
        with contextlib.closing(sqlite3.connect(disk.path / "mlflow.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
