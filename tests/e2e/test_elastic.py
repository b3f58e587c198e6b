"""Nodes come, are drained and die under a run with elastic workers: the same samples, losses and weights."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2
from safetensors.torch import load_file

from didact.files import write_text
from didact.runs import Run
from didact.spec import to_json
from didact.tracking import effective_records
from tests.conftest import ROOT
from tests.fakes.lineage import Lineage, executed, interruptions, lineage
from tests.fakes.loops import Loop, run_loop, run_loops
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]
STEPS = 500
SIZES = (1, 2, 1, 2, 1)  # workers of each attempt in `Weather`
PLACEMENT = {"num_workers": {"min": 1, "max": 2}, "resize_check_seconds": 1, "max_failures": 1, "max_preemptions": 1}


class Weather:
    """What befalls the nodes, each time after some more steps."""

    def __init__(self, cluster: Cluster, run: Run, driver: subprocess.Popen[str]) -> None:
        self._cluster, self._run, self._driver = cluster, run, driver

    def play(self) -> None:
        self._until(lambda: len(executed(self._run)) >= 3)
        first = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._until(lambda: "growth" in interruptions(self._run))
        self._more_steps()
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int(time.time() * 1000) + 120_000
        GcsClient(address=self._cluster.address).drain_node(first.node_id, reason, "spot", deadline)
        self._until(lambda: "preemption" in interruptions(self._run))
        self._more_steps()
        self._cluster.remove_node(first, allow_graceful=False)
        second = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._until(lambda: interruptions(self._run).count("growth") == 2)
        self._more_steps()
        self._cluster.remove_node(second, allow_graceful=False)
        self._until(lambda: "infrastructure" in interruptions(self._run))

    def _more_steps(self) -> None:
        count = len(executed(self._run))
        self._until(lambda: len(executed(self._run)) > count + 3)

    def _until(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + 200
        while not true():
            assert self._driver.poll() is None, f"the run ended too early, after {interruptions(self._run)}"
            assert time.monotonic() < until, f"nothing happened after {interruptions(self._run)}"
            time.sleep(0.05)


def replay(run: Run, checkpoints: Path) -> tuple[Lineage, Loop]:
    """The loop without Ray, with as many workers in each step as the run had: its lineage and last attempt."""
    last = {record.attempt: record.step for record in effective_records(run.steps)}
    assert len(last) == len(SIZES)
    found: Lineage = []
    for size, until in zip(SIZES, last.values(), strict=True):
        loop = run_loops(run.spec(), checkpoints, size, until=until)[0]
        found += loop.lineage
    return found, loop


@pytest.mark.fault("T9", "T11")
def test_nodes_come_and_go(tmp_path: Path) -> None:
    # A high rate would amplify what sums of two workers round differently, from step to step.
    changes = {"training__steps": STEPS, "training__evaluate_every": None, "adapter__dropout": 0.0}
    changes["training__learning_rate"] = 1e-4
    spec = tiny_recipe(tmp_path, name="elastic", evaluation=None, placement=PLACEMENT, **changes)
    write_text(tmp_path / "elastic.json", to_json(spec))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    variables = {"RAY_ADDRESS": cluster.address, "DIDACT_RUNS": str(tmp_path / "runs")}
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform"), **variables}
    words = [sys.executable, "-m", "didact.cli", "train", str(tmp_path / "elastic.json")]
    run = Run(tmp_path / "runs" / "elastic")
    driver = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        Weather(cluster, run, driver).play()
        printed, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0, printed
    finally:
        driver.kill()
        cluster.shutdown()
    assert interruptions(run) == ["growth", "preemption", "growth", "infrastructure"]
    assert len(executed(run)) - STEPS <= spec.training.checkpoint_every, "only the lost node may cost steps"
    check(run, tmp_path)


def check(run: Run, folder: Path) -> None:
    """To the bit a run with the same changes and no Ray; one worker alone differs by rounding only."""
    replayed, last = replay(run, folder / "replayed")
    assert lineage(run) == replayed
    saved = load_file(run.adapter / "adapter_model.safetensors")
    assert sorted(map(exact, saved.values())) == sorted(map(exact, last.weights.values()))
    alone = run_loop(run.spec(), folder / "alone")
    for record, (_, _, ids), loss in zip(effective_records(run.steps), alone.lineage, alone.losses, strict=True):
        assert record.sample_ids == ids
        assert record.metrics["train/loss"] == pytest.approx(loss, rel=1e-6)


def exact(weight: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    """Shape and bytes: the file names weights otherwise than the model in training."""
    return tuple(weight.shape), weight.numpy().tobytes()
