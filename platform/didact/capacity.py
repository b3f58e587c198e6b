"""How many workers of a size a Ray cluster has room for, now and once it has grown, and in words what it lacks.

    ray.nodes() + the launcher's file -> Cluster; with what each worker asks for -> room, or a Shortage

Example:
    >>> from didact.capacity import Cluster
    >>> Cluster(nodes=({"CPU": 8, "GPU": 2},), types=()).shortage({"CPU": 1, "GPU": 1}, 3).words
    'it has room for 2 of 3'
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Resources = Mapping[str, float]
"""Amounts by Ray's names: `CPU`, `GPU`, `accelerator_type:A100`."""

OWN_RAY = {"didact.io/started-by": "driver"}
"""Label on the node of a Ray that a command started for itself: no node will ever join it."""

_ANY = 1_000_000
"""Room for what asks for nothing."""
_TYPE, _HEAD = "accelerator_type:", "node:__internal_head__"


def asked_by_worker(num_cpus: int, *, use_gpu: bool, accelerator_type: str | None = None) -> dict[str, float]:
    """What one worker asks for, as Ray writes it."""
    ask: dict[str, float] = {"CPU": num_cpus}
    if use_gpu:
        ask["GPU"] = 1
    if accelerator_type:
        ask[f"{_TYPE}{accelerator_type}"] = 0.001
    return ask


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """Resources of one worker, resolved against a cluster."""

    num_cpus: int
    use_gpu: bool
    accelerator_type: str | None = None

    def bundle(self) -> dict[str, float]:
        """As Ray writes it."""
        return asked_by_worker(self.num_cpus, use_gpu=self.use_gpu, accelerator_type=self.accelerator_type)

    def actor_options(self) -> dict[str, Any]:
        """As actors take it."""
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": 1 if self.use_gpu else 0,
            "accelerator_type": self.accelerator_type,
        }


def asked_in_words(ask: Resources, num_workers: int) -> str:
    """`2 workers with 1 CPU, 1 GPU each`."""
    each = ", ".join(name.removeprefix(_TYPE) if amount < 1 else f"{amount:g} {name}" for name, amount in ask.items())
    return f"{'1 worker' if num_workers == 1 else f'{num_workers} workers'} with {each} each"


@dataclass(frozen=True, slots=True)
class NodeType:
    """Nodes that an autoscaler may start."""

    name: str
    resources: Resources
    most: int
    """As many of them at a time."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why there is no room."""

    resource: str
    """`CPU`, `GPU`, `accelerator_type` or another resource's name; `number` when only fewer would fit."""
    words: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster's nodes, whatever runs on them."""

    nodes: tuple[Resources, ...]
    """What each living node has in all."""
    types: tuple[NodeType, ...] | None
    """All that can ever be there beside the head; empty for a cluster that never grows, None where nobody says."""
    max_nodes: int = 0
    """Of all types together, the head not counted."""

    @classmethod
    def of(cls, nodes: Sequence[Mapping[str, Any]], launcher_file: Path) -> "Cluster":
        """Read what Ray says.

        Args:
            nodes: as `ray.nodes()` returns them.
            launcher_file: the configuration that `ray up` leaves on the head; other autoscalers tell nobody theirs.
        """
        alive = [node for node in nodes if node["Alive"]]
        there = tuple(node["Resources"] for node in alive)
        if any(OWN_RAY.items() <= node.get("Labels", {}).items() for node in alive):
            return cls(there, ())
        if not launcher_file.is_file():
            return cls(there, None)
        return cls.launched(there, yaml.safe_load(launcher_file.read_text(encoding="utf-8")))

    @classmethod
    def launched(cls, nodes: tuple[Resources, ...], config: Mapping[str, Any]) -> "Cluster":
        """A cluster of Ray's launcher, from its nodes and its configuration."""
        limit = config.get("max_workers", 0)
        types = tuple(
            NodeType(name, each.get("resources", {}), min(each.get("max_workers", limit), limit))
            for name, each in config["available_node_types"].items()
            if name != config["head_node_type"]
        )
        return cls(nodes, types, limit)

    def has_gpus(self) -> bool:
        """Whether a node has a GPU, or one that has may be started."""
        return any(each.get("GPU", 0) > 0 for each in self._kinds())

    def room(self, ask: Resources) -> int:
        """How many workers that ask for this fit on the nodes that are there, when nothing else runs on them."""
        return sum(_room(node, ask) for node in self.nodes)

    def most(self, ask: Resources) -> int:
        """How many fit once the cluster has grown; work without a GPU lets no node with one start."""
        left, total = self.max_nodes, sum(_room(node, ask) for node in self.nodes if _HEAD in node)
        types = [each for each in self.types or () if "GPU" in ask or not each.resources.get("GPU")]
        for each in sorted(types, key=lambda kind: -_room(kind.resources, ask)):
            started = min(each.most, left)
            total, left = total + started * _room(each.resources, ask), left - started
        return max(total, self.room(ask))

    def shortage(self, ask: Resources, number: int) -> Shortage | None:
        """What keeps `number` workers from the nodes that are there; None when they fit."""
        return None if self.room(ask) >= number else _shortage(self.nodes, ask, number, self.room(ask))

    def lasting_shortage(self, ask: Resources, number: int) -> Shortage | None:
        """What keeps them from it for ever; None where they fit, or will once it has grown, or nobody knows."""
        if self.types is None or self.most(ask) >= number:
            return None
        return _shortage(self._kinds(), ask, number, self.most(ask))

    def _kinds(self) -> tuple[Resources, ...]:
        return (*self.nodes, *(each.resources for each in self.types or () if each.most))

    def __str__(self) -> str:
        """What is there in all."""
        cpus, gpus = (sum(node.get(name, 0) for node in self.nodes) for name in ("CPU", "GPU"))
        nodes = "1 node" if len(self.nodes) == 1 else f"{len(self.nodes)} nodes"
        types = f" ({', '.join(_gpu_types(self.nodes))})" if _gpu_types(self.nodes) else ""
        return f"{nodes} with {cpus:g} CPU, {gpus:g} GPU{types}"


def _gpu_types(nodes: Sequence[Resources]) -> list[str]:
    return sorted({name.removeprefix(_TYPE) for node in nodes for name in node if name.startswith(_TYPE)})


def _room(node: Resources, ask: Resources) -> int:
    return min((_times(name, node.get(name, 0), amount) for name, amount in ask.items() if amount), default=_ANY)


def _times(name: str, there: float, amount: float) -> int:
    if name == "GPU" and amount < 1:  # a share is of one GPU: two thirds of two GPUs are not one more
        return int(there) * math.floor(1 / amount + 1e-6)
    return math.floor(there / amount + 1e-6)


def _shortage(nodes: Sequence[Resources], ask: Resources, number: int, room: int) -> Shortage:
    if ask.get("GPU") and not any(node.get("GPU") for node in nodes):
        return Shortage("GPU", "no node has a GPU")
    for name, amount in ask.items():
        largest = max((node.get(name, 0) for node in nodes), default=0)
        if largest >= amount:
            continue
        if name.startswith(_TYPE):
            others = _gpu_types(nodes)
            found = f"only {', '.join(others)}" if others else "no node says which GPUs it has"
            return Shortage("accelerator_type", f"no GPU of type {name.removeprefix(_TYPE)}, {found}")
        return Shortage(name, f"the largest node has {largest:g} {name}, and each asks for {amount:g}")
    if not room:
        return Shortage("number", "no single node has all of it")
    return Shortage("number", f"it has room for {room} of {number}")
