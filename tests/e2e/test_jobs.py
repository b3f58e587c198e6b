"""Several simulated nodes, and the jobs as people submit them: `ray job submit` against a cluster with a dashboard."""

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
from didact.connect import runtime_env
from didact.connect.forking import forking
from didact.files import read_jsonl, write_text
from didact.spec import to_json
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A node with a dashboard, to which others are added; workers are forked where the code is in its place."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The agent takes the jobs; left alone it wants the same port as that of any other Ray on this machine.
    ports = {"dashboard_port": port, "dashboard_agent_listen_port": 0}
    with pytest.MonkeyPatch.context() as patch, forking(runtime_env("")["env_vars"]):
        patch.delenv("COLUMNS", raising=False)  # of a process that runs tests beside others: what jobs print is wider
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": True, **ports})
        yield cluster
    cluster.shutdown()


def submit(cluster: Cluster, folder: Path, script: str, *words: str, upload: bool = False, code: int = 0) -> str:
    """Run `ray job submit` to its end and return what the job printed.

    Args:
        cluster: with a dashboard.
        folder: of runs and cache.
        script: below the repository.
        words: its arguments.
        upload: whether Ray hands the code to the nodes, or they find it where it is. Simulated nodes share the folder
            in which Ray unpacks, and each one's unpacking would take it away under the others.
        code: what the script must exit with.
    """
    variables = {"DIDACT_RUNS": str(folder / "runs"), "DIDACT_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [
        *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", f"http://{cluster.webui_url}"),
        *("--runtime-env-json", json.dumps({"env_vars": variables})),
        *(("--working-dir", str(ROOT)) if upload else ()),
        *("--", sys.executable, script if upload else str(ROOT / script), *words),
    ]
    until = time.monotonic() + 150
    while time.monotonic() < until:
        done = subprocess.run(command, capture_output=True, text=True, timeout=280)
        printed = done.stdout + done.stderr
        if "No available agent" not in printed:  # a cluster that has just started takes no jobs for a while
            break
    told = [line for line in printed.splitlines() if "packaging.py" not in line]
    assert done.returncode == (1 if code else 0), "\n".join(told[-60:])
    assert not code or f"failed with exit code {code}" in printed, "\n".join(told[-60:])
    return done.stdout


def write_mixed(folder: Path) -> Path:
    """Files in three forms, which are three parts: 30 rows each, and one that is refused."""
    folder.mkdir()
    turns = {"messages": ("role", "content", "user", "assistant"), "conversations": ("from", "value", "human", "gpt")}
    for number in range(30):
        records = [{"instruction": f"Name {number}.", "output": f"It is {number}"}]
        for key, (who, what, asks, says) in turns.items():
            records.append({key: [{who: asks, what: f"{key} {number}?"}, {who: says, what: f"It is {number}"}]})
        for name, record in zip("abc", records, strict=True):
            with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n" + ("[]\n" if number == 20 else ""))
    return folder


def state(cache: Path) -> dict[str, tuple[int, int]]:
    """Every prepared file, as it was written."""
    files = [file for kind in ("conversations", "tokens") for file in (cache / kind).glob("*/*") if file.name != "used"]
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def test_jobs_finetune_evaluate_and_predict(folder: Path, cluster: Cluster) -> None:
    changes = {"tracking": {"mlflow": True}, "register_as": {"name": "jobs"}, "training__steps": 6}
    spec = tiny_recipe(folder, name="job", **changes)
    write_text(folder / "job.json", to_json(spec))
    task = {"task": "reasoning_gym", "name": "chain_sum", "num_items": 2, "max_new_tokens": 4}
    evaluation = {"model": spec.model.model_dump(), "adapter": "jobs@candidate", "evaluation": {"tasks": [task]}}
    write_text(folder / "evaluation.json", json.dumps(evaluation))
    write_text(folder / "in.jsonl", '{"prompt": "Add 1 and 2."}\n{"prompt": ""}\n')
    prediction = ["--model", "jobs", "--base", spec.model.base, "--max-new-tokens", "4"]
    printed = submit(cluster, folder, "jobs/finetune.py", str(folder / "job.json"), upload=True)
    assert "registered jobs:1 (@candidate)" in printed
    printed = submit(cluster, folder, "jobs/evaluation.py", str(folder / "evaluation.json"))
    assert "chain_sum/accuracy" in printed
    submit(cluster, folder, "jobs/predict.py", str(folder / "in.jsonl"), str(folder / "out.jsonl"), *prediction)
    answered, refused = read_jsonl(folder / "out.jsonl")
    assert "prediction" in answered and "error" in refused


def test_what_a_job_prepared_is_what_a_run_over_nodes_trains_on(
    folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [
        {"name": "sums", "path": str(folder / "sums.jsonl"), "held_out_rows": 8},
        {"name": "mixed", "path": str(write_mixed(folder / "mixed")), "held_out_rows": 5},
    ]
    data = {"sources": sources, "max_bad_rows_share": 0.04}
    # One worker more than the first node has room for.
    over_nodes = {"placement__num_workers": 3, "training__global_batch_size": 6}
    spec = tiny_recipe(folder, name="nodes", evaluation=None, training__steps=6, data=data, **over_nodes)
    write_text(folder / "nodes.json", to_json(spec))
    recipe, cache = str(folder / "nodes.json"), folder / "cache"
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    refused = [recipe, "data.max_bad_rows_share=0.01"]
    printed = submit(cluster, folder, "jobs/prepare.py", *refused, code=2)
    assert "DataError" in printed and "source 'mixed': 3 of 93 rows (3.23%)" in printed
    assert str(cache / "quarantine" / "nodes" / "mixed.jsonl") in printed
    printed = submit(cluster, folder, "jobs/prepare.py", recipe)
    rows = [line.split()[:5] for line in printed.splitlines()]
    assert ["sums", "60", "0", "0", "52"] in rows and ["mixed", "93", "3", "0", "85"] in rows
    prepared = state(cache)
    assert len([name for name in prepared if name.endswith(".tokens.arrow")]) == 4
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    monkeypatch.setenv("DIDACT_CACHE", str(cache))
    run = finetune(spec, folder / "runs").run
    assert state(cache) == prepared, "the run prepared what the job had prepared"
    rejects = list(read_jsonl(cache / "quarantine" / "nodes" / "mixed.jsonl"))
    assert {(Path(each["file"]).name, each["line"], each["reason"]) for each in rejects} == {
        (f"{name}.jsonl", 22, "not_an_object") for name in "abc"
    }
    assert rejects == list(read_jsonl(run.quarantine / "mixed.jsonl"))
    assert not ray.is_initialized()
    assert [record["step"] for record in read_jsonl(run.steps)] == list(range(1, 7))
    assert (run.adapter / "adapter.json").is_file()
