"""Workers, evaluation tasks and trials on a cluster that only says it has GPUs: who gets which, and what is refused."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch.distributed as dist
import yaml
from ray.autoscaler._private.util import prepare_config
from ray.cluster_utils import Cluster

from didact.cluster import (
    WorkerResources,
    check_room,
    connected_cluster,
    evaluate_on_ray,
    room_for_workers,
    runs_at_once,
    runtime_env,
    worker_resources,
)
from didact.cluster.asking.subjects import HeldOutRows, Subject
from didact.cluster.train import Workers, run_on_workers
from didact.connect import new_key
from didact.connect.forking import forking
from didact.errors import DeviceError, PlacementError
from didact.serving.deploy import deploy, read_plan
from didact.spec import EvaluationSpec, PlacementSpec
from tests.conftest import ROOT
from tests.fakes.recipes import tiny_recipe

pytestmark = pytest.mark.ray
Found = tuple[str, tuple[int, ...]]
"""A node and the GPUs on it."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A head without GPUs, two nodes with two A100s each and one with an L4: id -> kind. Their workers are forked."""
    small = {"object_store_memory": 80 * 2**20}
    kinds = {}
    with forking(runtime_env("")["env_vars"]):
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **small})
        for kind, gpus in (("A100", 2), ("A100", 2), ("L4", 1)):
            added = nodes.add_node(num_cpus=4, num_gpus=gpus, resources={f"accelerator_type:{kind}": 1}, **small)
            kinds[added.node_id] = kind
        nodes.wait_for_nodes()
    ray.init(address=nodes.address, runtime_env=runtime_env(new_key()), log_to_driver=False, logging_level="warning")
    try:
        yield kinds
    finally:
        ray.shutdown()
        nodes.shutdown()


def placed(folder: Path, placement: PlacementSpec) -> list[Found]:
    """Node and visible GPUs of each worker, by rank; the work that a worker really has needs real GPUs."""
    resources = worker_resources(placement)
    number = room_for_workers(placement, resources)

    def where(config: dict[str, Any]) -> list[Found]:
        context = ray.train.get_context()
        mine = int(str(ray.train.torch.get_device()).rpartition(":")[2])
        visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        everyone: list[Any] = [None] * context.get_world_size()
        dist.all_gather_object(everyone, (ray.get_runtime_context().get_node_id(), (int(visible[mine]),)))
        return everyone

    workers = Workers(number, resources, "gloo")
    found: list[Found] = run_on_workers(where, {}, workers, folder=folder, name="where", patience_seconds=60)
    return found


def test_each_worker_gets_a_gpu_of_its_own_and_they_spread_over_nodes(tmp_path: Path, cluster: dict[str, str]) -> None:
    found = placed(tmp_path, PlacementSpec(num_workers=3, device="gpu", accelerator_type="A100"))
    assert len(set(found)) == 3, "two workers share a GPU"
    assert [cluster[node] for node, _ in found] == ["A100"] * 3
    assert len({node for node, _ in found}) == 2


def test_a_worker_gets_the_gpu_it_names(tmp_path: Path, cluster: dict[str, str]) -> None:
    ((node, gpus),) = placed(tmp_path, PlacementSpec(num_workers=1, accelerator_type="L4"))
    assert (cluster[node], gpus) == ("L4", (0,))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"num_workers": 9}, r"no room for 9 workers with 1 CPU, 1 GPU each: it has room for 5 of 9.*num_workers"),
        (
            {"num_workers": 2, "accelerator_type": "H100"},
            r"2 workers with 1 CPU, 1 GPU, H100 each: no GPU of type H100, only A100, L4, after 1 s.*The "
            r"cluster has 4 nodes with 13 CPU, 5 GPU .A100, L4.\. Change placement\.accelerator_type",
        ),
        ({"num_workers": 1, "cpus_per_worker": 5}, r"the largest node has 4 CPU, and each asks for 5.*cpus_per_worker"),
    ],
)
def test_what_the_cluster_lacks_is_said(cluster: dict[str, str], asked: dict[str, Any], found: str) -> None:
    placement = PlacementSpec(device="gpu", start_timeout_seconds=1, **asked)
    resources = WorkerResources(placement.cpus_per_worker, use_gpu=True, accelerator_type=placement.accelerator_type)
    with pytest.raises(PlacementError, match=found):
        room_for_workers(placement, resources)


def test_elastic_workers_take_the_gpus_there_are(cluster: dict[str, str]) -> None:
    placement = PlacementSpec(num_workers={"min": 1, "max": 8}, device="gpu", accelerator_type="A100")
    assert room_for_workers(placement, WorkerResources(1, use_gpu=True, accelerator_type="A100")) == 4


def test_trials_at_once_follow_the_gpus(tmp_path: Path, cluster: dict[str, str]) -> None:
    for workers, accelerator, trials in ((1, None, 5), (2, None, 2), (1, "A100", 4), (2, "A100", 2)):
        placement = {"num_workers": workers, "device": "gpu", "accelerator_type": accelerator}
        assert runs_at_once(tiny_recipe(tmp_path, placement=placement).placement) == trials
    assert runs_at_once(tiny_recipe(tmp_path, placement={"num_workers": 2, "device": "cpu"}).placement) == 6


def test_replicas_share_a_gpu_as_the_serve_file_says(cluster: dict[str, str]) -> None:
    actor = read_plan(ROOT / "serve" / "a100.yaml").options["ModelReplica"]["ray_actor_options"]
    shared = {**actor, "num_cpus": 1, "num_gpus": 0.4}

    @ray.remote
    class Replica:
        def where(self) -> Found:
            gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
            return ray.get_runtime_context().get_node_id(), tuple(map(int, gpus))

    ask = {"CPU": 1, "GPU": 0.4, "accelerator_type:A100": 0.001}
    room = connected_cluster().room(ask)
    replicas = [Replica.options(**shared).remote() for _ in range(room + 1)]
    calls = [each.where.remote() for each in replicas]
    ready, waiting = ray.wait(calls, num_returns=room, timeout=120)
    assert (len(ready), len(waiting), room) == (8, 1, 8)
    found = ray.get(ready)
    assert {cluster[node] for node, _ in found} == {"A100"}
    assert sorted(found.count(place) for place in set(found)) == [2, 2, 2, 2]
    for each in replicas:
        ray.kill(each)


def test_serving_on_gpus_that_never_come_is_refused(
    tmp_path: Path, cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump(shipped), encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    serve_file = tmp_path / "h100.yaml"
    text = (ROOT / "serve" / "a100.yaml").read_text(encoding="utf-8")
    text = text.replace("Qwen/Qwen2.5-7B-Instruct", "smollm2-135m-instruct")  # a base is looked for first
    serve_file.write_text(text.replace("accelerator_type: A100", "accelerator_type: H100"), encoding="utf-8")
    with pytest.raises(PlacementError, match=r"no room for 1 ModelReplica: no GPU of type H100, only A100, L4"):
        deploy(serve_file)
    assert ray.is_initialized()


def test_an_evaluation_task_asks_for_its_gpu_and_says_why_it_has_none(tmp_path: Path, cluster: dict[str, str]) -> None:
    recipe = tiny_recipe(tmp_path)
    resources = WorkerResources(1, use_gpu=True, accelerator_type="L4")
    with pytest.raises(DeviceError, match="a GPU is asked for, but torch finds none"):
        evaluate_on_ray({"base": Subject("tiny", recipe.model)}, EvaluationSpec(), resources, HeldOutRows(recipe))


def test_room_that_may_come_is_not_refused(cluster: dict[str, str]) -> None:
    check_room(PlacementSpec(num_workers=9), WorkerResources(1, use_gpu=True, accelerator_type="H100"))
