"""Several simulated nodes, and the jobs as people submit them: `ray job submit` against a cluster with a dashboard."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from didact.cluster import finetune
from didact.files import read_jsonl, write_text
from didact.spec import to_json
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@contextlib.contextmanager
def cluster(num_nodes: int, cpus_per_node: int) -> Iterator[tuple[str, str]]:
    """Simulated nodes on this machine; yields the addresses of the cluster and of its dashboard."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": cpus_per_node, "include_dashboard": True, "dashboard_port": port}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(num_nodes - 1):
        nodes.add_node(num_cpus=cpus_per_node, object_store_memory=80 * 2**20)
    nodes.wait_for_nodes()
    try:
        yield nodes.address, f"http://127.0.0.1:{port}"
    finally:
        nodes.shutdown()


def submit(address: str, folder: Path, *words: str) -> str:
    """Run `ray job submit` to its end and return what the job printed."""
    variables = {"DIDACT_RUNS": str(folder / "runs"), "DIDACT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [
        *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", address),
        *("--working-dir", str(ROOT), "--runtime-env-json", json.dumps({"env_vars": variables})),
        *("--", sys.executable, *words),
    ]
    until = time.monotonic() + 150
    while time.monotonic() < until:
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        printed = done.stdout + done.stderr
        if "No available agent" not in printed:  # a cluster that has just started takes no jobs for a while
            break
    told = [line for line in printed.splitlines() if "packaging.py" not in line]
    assert done.returncode == 0, "\n".join(told[-60:])
    return done.stdout


def test_a_run_spreads_over_nodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(num_nodes=3, cpus_per_node=1) as (address, _):
        monkeypatch.setenv("RAY_ADDRESS", address)
        spec = tiny_recipe(folder, name="nodes", evaluation=None, training__steps=6)
        run = finetune(spec, folder / "runs").run
    assert not ray.is_initialized()
    assert [record["step"] for record in read_jsonl(run.steps)] == list(range(1, 7))
    assert (run.adapter / "adapter.json").is_file()


def test_jobs_finetune_evaluate_and_predict(folder: Path) -> None:
    changes = {"tracking": {"mlflow": True}, "register_as": {"name": "jobs"}, "training__steps": 6}
    spec = tiny_recipe(folder, name="job", **changes)
    write_text(folder / "job.json", to_json(spec))
    task = {"task": "reasoning_gym", "name": "chain_sum", "num_items": 2, "max_new_tokens": 4}
    evaluation = {"model": spec.model.model_dump(), "adapter": "jobs@candidate", "evaluation": {"tasks": [task]}}
    write_text(folder / "evaluation.json", json.dumps(evaluation))
    write_text(folder / "in.jsonl", '{"prompt": "Add 1 and 2."}\n{"prompt": ""}\n')
    prediction = ["--model", "jobs", "--base", spec.model.base, "--max-new-tokens", "4"]
    with cluster(num_nodes=1, cpus_per_node=2) as (_, dashboard):
        printed = submit(dashboard, folder, "jobs/finetune.py", str(folder / "job.json"))
        assert "registered jobs:1 (@candidate)" in printed
        printed = submit(dashboard, folder, "jobs/evaluation.py", str(folder / "evaluation.json"))
        assert "chain_sum/accuracy" in printed
        submit(dashboard, folder, "jobs/predict.py", str(folder / "in.jsonl"), str(folder / "out.jsonl"), *prediction)
    answered, refused = read_jsonl(folder / "out.jsonl")
    assert "prediction" in answered and "error" in refused
