"""cluster.yaml passes Ray's own validation, and its node types hold the work they are there for."""

import functools
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
SCORER = functools.partial(_default_utilization_scorer, node_availability_summary=None)


@pytest.fixture
def cluster() -> dict[str, Any]:
    return prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))


def nodes_for(cluster: dict[str, Any], demand: list[dict[str, float]], *types: str) -> tuple[dict[str, int], list[Any]]:
    """What the autoscaler would start of `types` (default: of all) on an idle cluster, and what it could not place."""
    offered = {name: kind for name, kind in cluster["available_node_types"].items() if not types or name in types}
    started, left = get_nodes_for(offered, {"head": 1}, "head", cluster["max_workers"], demand, SCORER)
    return dict(started), left


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_ray_would_refuse_a_misspelt_key(cluster: dict[str, Any]) -> None:
    cluster["available_node_types"]["cpu"]["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        validate_config(cluster)


@pytest.mark.parametrize("kind", ["a100_40g", "a100_80g_spot"])
def test_sixteen_one_gpu_workers_fit_two_a100_nodes(cluster: dict[str, Any], kind: str) -> None:
    demand = [{"GPU": 1, "CPU": 8, "accelerator_type:A100": 0.001}] * 16
    assert nodes_for(cluster, demand, kind) == ({kind: 2}, [])
    started, left = nodes_for(cluster, demand)
    assert left == []
    assert sum(started.values()) == 2


def test_cpu_work_starts_no_gpu_node(cluster: dict[str, Any]) -> None:
    assert nodes_for(cluster, [{"CPU": 1}] * 16) == ({"cpu": 1}, [])
    assert "GPU" not in cluster["available_node_types"]["cpu"]["resources"]


def test_nothing_but_drivers_runs_on_the_head(cluster: dict[str, Any]) -> None:
    assert cluster["available_node_types"]["head"]["resources"]["CPU"] == 0


def test_limits_of_the_types_fit_the_whole(cluster: dict[str, Any]) -> None:
    workers = {name: kind for name, kind in cluster["available_node_types"].items() if name != "head"}
    assert all(kind["min_workers"] <= kind["max_workers"] for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) == cluster["max_workers"]


def test_image_has_the_ray_that_is_tested(cluster: dict[str, Any]) -> None:
    assert cluster["docker"]["image"] == f"rayproject/ray:{importlib.metadata.version('ray')}-py311-gpu"


def test_every_node_shares_the_run_folders(cluster: dict[str, Any]) -> None:
    options = cluster["docker"]["run_options"]
    shared = "/mnt/shared"
    assert f"-v {shared}:{shared}" in options
    assert {f"-e DIDACT_RUNS={shared}/runs", f"-e DIDACT_CACHE={shared}/cache"} <= set(options)
    assert any(shared in command and "mount" in command for command in cluster["initialization_commands"])


def test_ray_starts_with_token_authentication(cluster: dict[str, Any]) -> None:
    for role in ("head", "worker"):
        (start,) = [command for command in cluster[f"{role}_start_ray_commands"] if "ray start" in command]
        assert "RAY_AUTH_MODE=token ray start" in start
