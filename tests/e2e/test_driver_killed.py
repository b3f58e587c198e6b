"""Killing the driver with SIGKILL and running the same command again ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from didact.files import write_text
from didact.spec import FinetuneSpec, to_json
from didact.tracking import effective_records
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe

pytestmark = pytest.mark.ray
LIMIT_SECONDS = 240


def command(folder: Path, spec: FinetuneSpec) -> tuple[list[str], dict[str, str]]:
    recipe = folder / f"{spec.name}.json"
    write_text(recipe, to_json(spec))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), "DIDACT_RUNS": str(folder / "runs")}
    return [sys.executable, "-m", "didact.cli", "train", str(recipe)], environment


def test_a_killed_driver_resumes_to_the_same_weights(tmp_path: Path) -> None:
    changes = {"training__steps": 24, "evaluation": None}
    words, environment = command(tmp_path, tiny_recipe(tmp_path, name="unbroken", **changes))
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    words, environment = command(tmp_path, tiny_recipe(tmp_path, name="killed", **changes))
    steps = tmp_path / "runs" / "killed" / "steps.jsonl"
    # A fault in worker 0 at step 14 makes sure that the driver dies in the middle: it is killed at the restart.
    write_text(steps.parent / "failpoint", "step-rank0:kill@14")
    driver = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    struck = steps.parent / "failpoint-1-struck"
    until = time.monotonic() + LIMIT_SECONDS
    while not struck.exists() and time.monotonic() < until:
        assert driver.poll() is None, "the driver ended before the fault struck"
        time.sleep(0.05)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (tmp_path / "runs" / "killed" / "adapter").exists()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    runs = [tmp_path / "runs" / name for name in ("unbroken", "killed")]
    expected, found = (
        [(r.step, r.loss_hex, tuple(r.sample_ids)) for r in effective_records(run / "steps.jsonl")] for run in runs
    )
    assert expected == found and len(found) == 24
    one, other = (load_file(run / "adapter" / "adapter_model.safetensors") for run in runs)
    assert one.keys() == other.keys() and all(bool((one[name] == other[name]).all()) for name in one)
