"""Nodes come, are drained and die under a run with elastic workers: the same samples, the same losses."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from didact.cluster import finetune
from didact.runs import Run
from didact.tracking import effective_records
from didact.training import prepare_data
from tests.fakes.lineage import executed, interruptions
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]
STEPS = 900
PLACEMENT = {"num_workers": {"min": 1, "max": 2}, "resize_check_seconds": 1, "max_failures": 1, "max_preemptions": 1}


class Weather:
    """What befalls the nodes, each time after some more steps; in a thread beside the run."""

    def __init__(self, cluster: Cluster, run: Run) -> None:
        self._cluster, self._run = cluster, run
        self.reached: list[str] = []

    def play(self) -> None:
        self._until(lambda: len(executed(self._run)) >= 3)
        first = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._until(lambda: "growth" in interruptions(self._run))
        self._more_steps("grown")
        reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int(time.time() * 1000) + 120_000
        GcsClient(address=self._cluster.address).drain_node(first.node_id, reason, "spot", deadline)
        self._until(lambda: "preemption" in interruptions(self._run))
        self._more_steps("drained")
        self._cluster.remove_node(first, allow_graceful=False)
        second = self._cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
        self._until(lambda: interruptions(self._run).count("growth") == 2)
        self._more_steps("grown again")
        self._cluster.remove_node(second, allow_graceful=False)
        self._until(lambda: "infrastructure" in interruptions(self._run))
        self.reached.append("lost")

    def _more_steps(self, reached: str) -> None:
        count = len(executed(self._run))
        self._until(lambda: len(executed(self._run)) > count + 3)
        self.reached.append(reached)

    def _until(self, true: Callable[[], bool]) -> None:
        until = time.monotonic() + 200
        while not true():
            assert time.monotonic() < until, self.reached
            time.sleep(0.05)


@pytest.mark.fault("T9", "T11")
def test_nodes_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"training__steps": STEPS, "training__evaluate_every": None, "adapter__dropout": 0.0}
    spec = tiny_recipe(tmp_path, name="elastic", evaluation=None, placement=PLACEMENT, **changes)
    expected = run_loop(spec, tmp_path / "plain").reports
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 * 2**20})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    weather = Weather(cluster, Run(tmp_path / "runs" / "elastic"))
    thread = threading.Thread(target=weather.play, daemon=True)
    try:
        thread.start()
        run = finetune(spec, tmp_path / "runs").run
        thread.join()
    finally:
        cluster.shutdown()
    assert not ray.is_initialized()
    assert weather.reached == ["grown", "drained", "grown again", "lost"]
    assert interruptions(run) == ["growth", "preemption", "growth", "infrastructure"]
    found = effective_records(run.steps)
    loader = prepare_data(spec).loader(spec)
    assert [record.sample_ids for record in found] == [loader.step(step).sample_ids for step in range(STEPS)]
    assert len(executed(run)) - STEPS <= spec.training.checkpoint_every, "only the lost node may cost steps"
    for record, report in zip(found, expected, strict=True):
        assert record.metrics["train/loss"] == pytest.approx(report.metrics["train/loss"], rel=1e-4)
