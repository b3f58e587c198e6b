"""Many trials at one MLflow server (row T18 of the fault table)."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from didact.spec import TrackingSpec
from didact.tracking import JsonLinesTracker, MlflowSync, open_run
from didact.tracking.mlflow_tracker import connect

TRIALS, POINTS = 16, 200
_LONGEST_START = 180
_ANSWER = re.compile(r'"(GET|POST|PATCH|PUT|DELETE) (\S+) HTTP/1\.1" (\d{3})')


@dataclass
class Server:
    """An MLflow server of one process, in a process group of its own."""

    uri: str
    process: subprocess.Popen[bytes]
    log: Path

    def signal(self, number: signal.Signals) -> None:
        """To all its processes."""
        os.killpg(self.process.pid, number)

    def answers(self) -> Counter[int]:
        """Statuses of all requests to its interface so far."""
        found = _ANSWER.findall(self.log.read_text(errors="replace"))
        return Counter(int(status) for _, path, status in found if "/api/" in path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--default-artifact-root", str(tmp_path / "artifacts"), "--uvicorn-opts", "--log-level info"]
    log = tmp_path / "server.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, start_new_session=True, cwd=tmp_path)
    made = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        _wait_for(made)
        yield made
    finally:
        made.signal(signal.SIGCONT)
        made.signal(signal.SIGKILL)
        process.wait()


def _wait_for(made: Server) -> None:
    end = time.monotonic() + _LONGEST_START
    while time.monotonic() < end:
        if made.process.poll() is not None:
            pytest.fail(f"the server ended: {made.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{made.uri}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {made.log.read_text()[-2000:]}")


@pytest.mark.nightly
@pytest.mark.fault("T18")
def test_a_server_that_stands_still_delays_no_step_and_then_gets_every_point(server: Server, tmp_path: Path) -> None:
    tracking = TrackingSpec(uri=server.uri)
    parent = open_run(tmp_path / "sweep", "sweep", tracking, {}, {}, (), "{}")
    folders = [tmp_path / "trials" / f"s-{number}" for number in range(TRIALS)]
    for folder in folders:
        open_run(folder, folder.name, tracking, {"n": "1"}, {}, (), "{}", parent_run_id=parent)
    syncs = [MlflowSync(folder, folder.name, tracking, parent, poll_seconds=0.05) for folder in folders]
    opened = server.answers()
    for sync in syncs:
        sync.start()
    server.signal(signal.SIGSTOP)
    # Were a step to wait for MLflow, this would never come to its end.
    for folder in folders:
        tracker = JsonLinesTracker(folder / "steps.jsonl", attempt=1)
        for step in range(1, POINTS + 1):
            tracker.log(step, {"train/loss": 1 / step})
    server.signal(signal.SIGCONT)
    complete = [sync.close("FINISHED", timeout_seconds=120) for sync in syncs]
    assert complete == [True] * TRIALS
    client = connect(server.uri)
    (experiment,) = [each for each in client.search_experiments() if each.name == tracking.experiment]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    assert set(runs) == {"sweep", *(folder.name for folder in folders)}, "one run each"
    stored = [client.get_metric_history(runs[folder.name].info.run_id, "train/loss") for folder in folders]
    assert [len(points) for points in stored] == [POINTS] * TRIALS
    assert all(sorted(point.step for point in points) == list(range(1, POINTS + 1)) for points in stored)
    assert {runs[folder.name].data.tags["mlflow.parentRunId"] for folder in folders} == {parent}
    answers = server.answers() - opened
    assert sum(answers.values()) > TRIALS and all(status < 400 for status in answers), answers
