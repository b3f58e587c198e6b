"""How many workers fit on which nodes, and what a cluster is said to lack; the shipped cluster among them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

from didact.capacity import OWN_RAY, Cluster
from didact.cluster import WorkerResources
from didact.spec import FinetuneSpec, load_spec
from tests.conftest import ROOT

A100 = {"CPU": 96, "GPU": 8, "accelerator_type:A100": 1}
ONE = {"CPU": 8, "GPU": 1, "accelerator_type:A100": 0.001}


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that `ray up cluster.yaml` leaves on the head."""
    file = tmp_path_factory.mktemp("head") / "ray_bootstrap_config.yaml"
    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def node(resources: dict[str, float], *, alive: bool = True, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """As `ray.nodes()` has it."""
    return {"Alive": alive, "Resources": resources, "Labels": labels or {}}


@pytest.mark.parametrize(
    ("nodes", "ask", "room"),
    [
        ([{"CPU": 8, "GPU": 4}], {"CPU": 1, "GPU": 1}, 4),
        ([{"CPU": 2, "GPU": 4}], {"CPU": 1, "GPU": 1}, 2),
        ([{"CPU": 12, "GPU": 2}, {"CPU": 12, "GPU": 2}], {"CPU": 8, "GPU": 1}, 2),  # not three of 24 CPUs
        ([{"CPU": 8, "GPU": 2}], {"CPU": 1, "GPU": 0.5}, 4),
        ([{"CPU": 8, "GPU": 2}], {"CPU": 1, "GPU": 0.4}, 4),  # not five: two on each
        ([{"CPU": 8, "GPU": 1}], {"CPU": 1, "GPU": 0.1}, 8),
        ([{"CPU": 8}], {"CPU": 1, "GPU": 1}, 0),
        ([], {"CPU": 1}, 0),
        ([{"CPU": 0}], {}, 1_000_000),  # what asks for nothing fits anywhere
        ([A100, {"CPU": 96, "GPU": 8, "accelerator_type:H100": 1}], ONE, 8),
    ],
)
def test_room_is_counted_node_by_node(nodes: list[dict[str, float]], ask: dict[str, float], room: int) -> None:
    cluster = Cluster(tuple(nodes), ())
    assert cluster.room(ask) == cluster.most(ask) == room
    assert (cluster.shortage(ask, room) is None) and cluster.shortage(ask, room + 1) is not None


@pytest.mark.parametrize(
    ("nodes", "ask", "number", "resource", "words"),
    [
        ([{"CPU": 8}], ONE, 2, "GPU", "no node has a GPU"),
        ([], ONE, 1, "GPU", "no node has a GPU"),
        (
            [{"CPU": 8, "GPU": 1, "accelerator_type:H100": 1}, {"CPU": 8, "GPU": 1, "accelerator_type:L4": 1}],
            *(ONE, 2, "accelerator_type", "no GPU of type A100, only H100, L4"),
        ),
        ([{"CPU": 8, "GPU": 1}], ONE, 1, "accelerator_type", "no GPU of type A100, no node says which GPUs it has"),
        ([{"CPU": 4, "GPU": 8}], {"CPU": 8, "GPU": 1}, 1, "CPU", "the largest node has 4 CPU, and each asks for 8"),
        ([A100], ONE, 9, "number", "it has room for 8 of 9"),
        ([{"CPU": 8}, {"GPU": 1}], {"CPU": 8, "GPU": 1}, 1, "number", "no single node has all of it"),
    ],
)
def test_what_is_lacking_has_a_name(
    nodes: list[dict[str, float]], ask: dict[str, float], number: int, resource: str, words: str
) -> None:
    found = Cluster(tuple(nodes), ()).lasting_shortage(ask, number)
    assert found is not None and (found.resource, found.words) == (resource, words)


def test_only_what_is_known_to_last_is_refused(tmp_path: Path) -> None:
    own = Cluster.of([node({"CPU": 2}, labels=OWN_RAY)], tmp_path / "absent")
    joined = Cluster.of([node({"CPU": 2}), node(A100, alive=False)], tmp_path / "absent")
    assert own.lasting_shortage(ONE, 1) is not None
    assert joined.lasting_shortage(ONE, 1) is None, "nodes may join a cluster that nobody describes"
    assert joined.shortage(ONE, 1) is not None, "a dead node gives nothing"
    assert str(joined) == "1 node with 2 CPU, 0 GPU"


def test_the_shipped_cluster_grows_to_what_it_says(launcher: Path) -> None:
    cluster = Cluster.of([node({"CPU": 0})], launcher)
    assert cluster.has_gpus()
    assert (cluster.room(ONE), cluster.most(ONE)) == (0, 48)
    assert cluster.lasting_shortage(ONE, 48) is None
    assert cluster.lasting_shortage(ONE, 49).words == "it has room for 48 of 49"
    assert cluster.most({"CPU": 1}) == 64, "work without a GPU starts no A100 node"
    other = {"CPU": 8, "GPU": 1, "accelerator_type:H100": 0.001}
    assert cluster.lasting_shortage(other, 1).words == "no GPU of type H100, only A100"
    assert cluster.lasting_shortage({**ONE, "CPU": 97}, 1).words == "the largest node has 96 CPU, and each asks for 97"


def test_more_nodes_than_the_cluster_may_have_are_not_counted() -> None:
    config = {
        "max_workers": 3,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "max_workers": 0},
            "small": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 9},
            "large": {"resources": {"CPU": 64, "GPU": 8}, "max_workers": 1},
        },
    }
    for cpus, room in ((0, 8 + 2), (8, 8 + 2 + 1)):
        head = {"CPU": cpus, "GPU": 1, "node:__internal_head__": 1}
        assert Cluster.launched((head,), config).most({"CPU": 8, "GPU": 1}) == room


@pytest.mark.parametrize("recipe", sorted((ROOT / "jobs" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_fits_the_shipped_cluster(recipe: Path, launcher: Path) -> None:
    placement = load_spec(FinetuneSpec, recipe).placement
    for gpu in (placement.device == "gpu", placement.device != "cpu"):
        ask = WorkerResources(placement.cpus_per_worker, gpu, placement.accelerator_type).bundle()
        assert Cluster.of([node({"CPU": 0})], launcher).lasting_shortage(ask, placement.max_workers) is None
