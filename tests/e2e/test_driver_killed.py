"""Killing the driver, or all of Ray, and running the same command again ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from didact.files import write_text
from didact.runs import Run
from didact.spec import FinetuneSpec, to_json
from tests.conftest import ROOT
from tests.fakes.lineage import is_as_alone, lineage
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

LIMIT_SECONDS = 240  # of each of two commands, which start Ray
pytestmark = [pytest.mark.ray, pytest.mark.timeout(3 * LIMIT_SECONDS)]


def command(folder: Path, spec: FinetuneSpec) -> tuple[list[str], dict[str, str]]:
    recipe = folder / f"{spec.name}.json"
    write_text(recipe, to_json(spec))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "DIDACT_RUNS": str(folder / "runs")}
    return [sys.executable, "-m", "didact.cli", "train", str(recipe)], environment


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param("driver", marks=pytest.mark.fault("T7")),
        pytest.param("everything", marks=[pytest.mark.fault("T8"), pytest.mark.nightly]),
    ],
)
def test_a_killed_driver_resumes_to_the_same_weights(tmp_path: Path, victims: str) -> None:
    changes = {"training__steps": 24, "evaluation": None, "placement__num_workers": 1}
    recorded = {"tracking": {"mlflow": True}, "register_as": {"name": "killed"}}
    spec = tiny_recipe(tmp_path, name="killed", **changes, **recorded)
    words, environment = command(tmp_path, spec)
    killed = Run(tmp_path / "runs" / "killed")
    # A fault in worker 0 at step 14 makes sure that the driver dies in the middle: it is killed at the restart.
    write_text(killed.path / "failpoint", "step-rank0:kill@14")
    driver = psutil.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    struck = killed.path / "failpoint-1-struck"
    until = time.monotonic() + LIMIT_SECONDS
    while not struck.exists() and time.monotonic() < until:
        assert driver.poll() is None, "the driver ended before the fault struck"
        time.sleep(0.05)
    ray_processes = driver.children(recursive=True)
    kill([driver, *(ray_processes if victims == "everything" else [])])
    driver.wait()
    assert not killed.adapter.exists()
    mlflow_run = json.loads((killed.path / "mlflow.json").read_text())["run_id"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    unbroken = run_loop(spec, tmp_path / "unbroken")  # the plain loop, without Ray
    assert is_as_alone(killed, unbroken) and len(lineage(killed)) == 24
    assert json.loads((killed.path / "mlflow.json").read_text())["run_id"] == mlflow_run
    assert "registered killed:1 (@candidate)" in done.stdout
    _, left = psutil.wait_procs(ray_processes, timeout=60)  # Ray's agents look for their parent now and then
    assert not left, "processes of the first driver are left"
