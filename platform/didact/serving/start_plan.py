"""What `didact serve` would start, looked at as the real start looks at it, and nothing is started.

serve/local.yaml + key=value -> plan_start -> StartPlan: address, replicas, memory, adapters
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact import env
from didact.capacity import Cluster
from didact.connect import check_ray, cluster_to_join
from didact.devices import memory_of_a_worker, num_gpus, sees_gpu
from didact.display import Shown
from didact.errors import ModelTooLarge, RegistryError
from didact.registry import ModelVersion, Registry
from didact.serving.deploy import (
    DeployPlan,
    asked_by,
    check_base,
    check_engine,
    check_keys,
    check_room,
    fewest_replicas,
    read_plan,
    with_environment,
)
from didact.serving.place import place_for
from didact.serving.replica.assemble import base_name, build_catalog, tracking_uri
from didact.spec import BUNDLED_BASE, LoraSpec, ServeSpec

if TYPE_CHECKING:  # it counts with torch, which loads for seconds
    from didact.models.footprint import ServedFootprint

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class FoundAdapter:
    """A registered name, as the server would offer it."""

    version: ModelVersion
    """What the bare name means."""
    aliases: tuple[str, ...]
    problem: str | None
    """Why it could not be served; None where nothing speaks against it."""


@dataclass(frozen=True, slots=True)
class StartPlan(Shown):
    """What would be started."""

    deploy: DeployPlan
    options: Mapping[str, Mapping[str, Any]]
    """Ray Serve's options by deployment name."""
    cluster: Cluster
    joined: bool
    """Whether it is a Ray at `RAY_ADDRESS`; else one that the server starts here."""
    on_gpu: bool
    footprint: "ServedFootprint"
    adapter: LoraSpec
    """What an adapter is taken for."""
    memory_gib: float | None
    """Of what a replica computes on; None where it cannot be known from here."""
    adapters: tuple[FoundAdapter, ...]
    registry: str
    """Its address, or why it could not be read."""

    @property
    def slots_gib(self) -> float:
        """All places for adapters."""
        spec = self.deploy.spec
        places = spec.max_adapters + (1 if spec.engine == "vllm" else 0)
        return places * self.footprint.adapter_gib

    @property
    def kept_gib(self) -> float:
        """Keys and values of prompts, kept for later ones."""
        return _prefix_cache_bytes() / _GIB if self.deploy.spec.engine == "embedded" else 0.0

    @property
    def fixed_gib(self) -> float:
        """What a replica takes before it is asked anything, and for prompts that it keeps."""
        return self.footprint.weights_gib + self.slots_gib + self.kept_gib

    @property
    def full_gib(self) -> float:
        """Keys and values of as many rows as are generated together, each as long as it can be."""
        return self.footprint.cache_gib(self.deploy.spec.max_batch_size * self.footprint.context_length)

    @property
    def tokens_that_fit(self) -> int | None:
        """Tokens of all running rows together that memory has room for; None where it is not known."""
        if self.memory_gib is None:
            return None
        return max(0, int((self.memory_gib - self.fixed_gib) * _GIB / self.footprint.bytes_per_token))

    @override
    def __rich__(self) -> Group:
        lines = Table.grid(padding=(0, 2))
        for name, text in self._lines():
            lines.add_row(Text(name), Text(text))
        return Group(Text("nothing was started; the server would be:"), lines, *self._table())

    def _lines(self) -> list[tuple[str, str]]:
        spec, found = self.deploy.spec, self.footprint
        where = "the cluster at RAY_ADDRESS" if self.joined else "a Ray of its own on this machine"
        keys = ", ".join(filter(None, ["DIDACT_API_KEYS" if env.api_keys() else "", str(env.keys_file() or "")]))
        held = f"{spec.model.quantization.bits} bits" if spec.model.quantization else found.dtype
        memory = [
            f"{self.fixed_gib:.2f} GiB a replica: weights {found.weights_gib:.2f}, {spec.max_adapters} adapters of "
            f"LoRA rank {self.adapter.r} on all linear layers {self.slots_gib:.2f}, kept prompts {self.kept_gib:.2f}",
            f"keys and values {found.bytes_per_token / 1024:,.1f} KiB a token; {spec.max_batch_size} rows of "
            f"{found.context_length:,} tokens would take {self.full_gib:.2f} GiB",
            self._fit(),
        ]
        return [
            ("address", f"{self.deploy.url} (OpenAI's API at {self.deploy.url}/v1)"),
            ("keys", keys or "none: the API is open to whoever reaches it"),
            ("Ray", f"{where}: {self.cluster}"),
            *((name, self._replicas(name)) for name in self.options),
            ("engine", f"{spec.engine}, {spec.max_batch_size} rows together, {spec.max_waiting} waiting"),
            ("base", f"{base_name(spec)} in {held}, computing in {found.dtype}, {found.context_length:,} tokens"),
            *(("memory" if number == 0 else "", line) for number, line in enumerate(memory)),
            ("registry", self.registry),
        ]

    def _replicas(self, name: str) -> str:
        given = self.options[name]
        scaling, fewest = given.get("autoscaling_config"), fewest_replicas(given)
        most = scaling.get("max_replicas", fewest) if isinstance(scaling, Mapping) else fewest
        asked = asked_by(given["ray_actor_options"])
        each = ", ".join(f"{amount:g} {kind}" for kind, amount in asked.items()) or "nothing reserved"
        now = "" if not asked else f"; room for {self.cluster.room(asked)} now"
        return f"{fewest if most == fewest else f'{fewest} to {most}'}, each {each}{now}"

    def _fit(self) -> str:
        tokens = self.tokens_that_fit
        if tokens is None:
            return "how much memory a replica will have is not known from here"
        device = "the GPU" if self.on_gpu else "the machine, which replicas share,"
        words = f"{device} has {self.memory_gib:.1f} GiB: room for {tokens:,} tokens of running requests"
        full = self.deploy.spec.max_batch_size * self.footprint.context_length
        return words if tokens >= full else f"{words}, fewer than the {full:,} of rows that are all as long as can be"

    def _table(self) -> list[Table]:
        if not self.adapters:
            return []
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0))
        for heading in ("adapter", "answers as", "aliases", "method", "served"):
            table.add_column(heading, overflow="fold")
        for each in self.adapters:
            version = each.version
            method = version.tags.get("method", "unknown")
            table.add_row(version.name, version.id, " ".join(each.aliases), method, Text(each.problem or "yes"))
        return [table]


def plan_start(config: Path, overrides: Sequence[str] = (), port: int | None = None) -> StartPlan:
    """Look at everything that `deploy` looks at, and start nothing: no Ray, no server, no model.

    Raises:
        DidactError: as `deploy`; `ModelTooLarge` where weights and places for adapters alone take more than there is.
    """
    plan = read_plan(config, overrides, port)
    check_keys()
    check_ray()
    cluster = cluster_to_join()
    check_engine(plan, config, here=cluster is None)
    check_base(plan.spec, here=cluster is None)
    if cluster is None:
        with place_for(plan.http.host, plan.http.port):
            pass
    options = with_environment(plan, key="")
    check_room(options, config, cluster or _own_ray())
    replica = asked_by(options["ModelReplica"]["ray_actor_options"])
    on_gpu = "GPU" in replica or (cluster is None and sees_gpu())
    from didact.models.footprint import served_footprint  # when all that is quickly found wrong was told

    registry, adapters = _adapters(plan.spec)
    adapter = LoraSpec(r=_highest_rank(adapters, plan.spec))
    found = StartPlan(
        deploy=plan,
        options=options,
        cluster=cluster or _own_ray(),
        joined=cluster is not None,
        on_gpu=on_gpu,
        footprint=served_footprint(plan.spec.model, adapter, on_cpu=not on_gpu),
        adapter=adapter,
        memory_gib=memory_of_a_worker(cluster.nodes if cluster else None, on_gpu=on_gpu, gpus=replica.get("GPU", 1)),
        adapters=adapters,
        registry=registry,
    )
    if found.memory_gib is not None and found.fixed_gib > found.memory_gib:
        raise ModelTooLarge(
            f"base {base_name(plan.spec)} with {plan.spec.max_adapters} adapters takes {found.fixed_gib:.1f} GiB, and "
            f"there are {found.memory_gib:.1f}; set model.quantization, fewer max_adapters, or a smaller base"
        )
    return found


def _adapters(spec: ServeSpec) -> tuple[str, tuple[FoundAdapter, ...]]:
    """The registry in words, and what it offers."""
    address = tracking_uri(spec)
    try:
        catalog = build_catalog(spec, None)
        Registry(address).holdings()  # says what is wrong, where a catalog goes on with what it knows
        catalog.refresh()
    except RegistryError as error:
        return f"cannot be read, so the base alone would answer: {error}", ()
    fingerprint = _fingerprint(spec)
    found = []
    for offer in catalog.offers():
        if offer.version.name == base_name(spec):
            problem: str | None = "the base has the same name, and answers to it"
        else:
            problem = catalog.problem(offer.version.name, offer.version) or _other_base(offer.version, fingerprint)
        found.append(FoundAdapter(offer.version, offer.aliases, problem))
    served = sum(each.problem is None for each in found)
    return f"{address}: {len(found)} names, {served} of them can be served", tuple(found)


def _other_base(version: ModelVersion, fingerprint: str | None) -> str | None:
    trained_on = version.tags.get("base_sha256")
    if fingerprint is None or trained_on is None or trained_on == fingerprint:
        return None
    return f"it was trained on another base, {version.tags.get('base', trained_on[:12])}"


def _fingerprint(spec: ServeSpec) -> str | None:
    """Of the base's weights, where they are here already."""
    if spec.model.base != BUNDLED_BASE and not Path(spec.model.base).expanduser().is_dir():
        return None
    from didact.models import base_fingerprint

    return base_fingerprint(spec.model)


def _highest_rank(adapters: Sequence[FoundAdapter], spec: ServeSpec) -> int:
    if spec.engine == "vllm":
        return spec.vllm.max_lora_rank
    return max((_rank(each.version) for each in adapters if each.problem is None), default=0) or LoraSpec().r


def _rank(version: ModelVersion) -> int:
    """Of a version's LoRA, as its tags tell it; 0 where they do not."""
    try:
        options = json.loads(version.tags.get("method_options", "{}"))
    except ValueError:
        return 0
    rank = options.get("r") if isinstance(options, dict) else None
    return rank if isinstance(rank, int) and 1 <= rank <= 1024 else 0


def _own_ray() -> Cluster:
    """What a Ray of its own would have."""
    return Cluster(({"CPU": os.cpu_count() or 1, "GPU": num_gpus() if sees_gpu() else 0},), ())


def _prefix_cache_bytes() -> int:
    """As the engine takes it where nobody says otherwise."""
    from didact.serving.engine.embedded import EmbeddedEngine

    defaults = EmbeddedEngine.__init__.__kwdefaults__ or {}
    return int(defaults["prefix_cache_bytes"])
