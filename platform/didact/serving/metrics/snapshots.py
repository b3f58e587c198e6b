"""Figures of several processes as one: what `/metrics` of a gateway says.

Snapshots of all replicas -> MetricsSum -> Prometheus' text
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_MEANS = frozenset(["vllm:kv_cache_usage_perc"])
_LARGEST = frozenset(
    ["vllm:cache_config_info", "vllm:lora_adapter_loaded", "vllm:max_gpu_lora_adapters", "vllm:lora_requests_info"]
)
"""Say what is so, and are not counts."""

_LISTS = ("running_lora_adapters", "waiting_lora_adapters")
_GAUGES = ("gauge", "info", "unknown")
_Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Figures of one process at one moment."""

    source: str
    """Which process; another one has another name."""
    families: tuple[Metric, ...]


def snapshot_of(source: str, *registries: CollectorRegistry) -> Snapshot:
    """What the registries hold now, without the times at which series were made."""
    families = []
    for registry in registries:
        for family in registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            families.append(family)
    return Snapshot(source, tuple(families))


class MetricsSum:
    """Adds up snapshots. Counts of processes that are gone stay, so that no sum ever falls."""

    def __init__(self) -> None:
        self._present: dict[str, Snapshot] = {}
        self._departed: dict[str, dict[tuple[str, _Labels], float]] = {}

    def text(self, snapshots: Sequence[Snapshot]) -> bytes:
        """The sum in Prometheus' text form.

        Args:
            snapshots: one for each process that is there.
        """
        present = {each.source: each for each in snapshots}
        for source, last in self._present.items():
            if source not in present:
                self._depart(last)
        self._present = present
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Fixed(self._summed(snapshots)))
        return generate_latest(registry)

    def _depart(self, last: Snapshot) -> None:
        for family in last.families:
            if family.type not in _GAUGES:
                kept = self._departed.setdefault(family.name, {})
                for sample in family.samples:
                    key = (sample.name, tuple(sorted(sample.labels.items())))
                    kept[key] = kept.get(key, 0.0) + sample.value

    def _summed(self, snapshots: Sequence[Snapshot]) -> list[Metric]:
        heads: dict[str, Metric] = {}
        found: dict[str, dict[tuple[str, _Labels], list[float]]] = {}
        for family in (family for each in snapshots for family in each.families):
            heads.setdefault(family.name, family)
            values = found.setdefault(family.name, {})
            for sample in family.samples:
                values.setdefault((sample.name, tuple(sorted(sample.labels.items()))), []).append(sample.value)
        told = []
        for name, values in found.items():
            head = Metric(name, heads[name].documentation, heads[name].type)
            # A replica tells the name of every adapter that it knows; the newest series is the only one that is read.
            joined = _joined(values) if name == "vllm:lora_requests_info" else values
            for key, value in self._departed.get(name, {}).items():
                joined.setdefault(key, []).append(value)
            for (series, labels), each in joined.items():
                head.add_sample(series, dict(labels), _one(name, each))
            told.append(head)
        return told


def _one(name: str, values: list[float]) -> float:
    if name in _LARGEST:
        return max(values)
    return sum(values) / len(values) if name in _MEANS else sum(values)


def _joined(values: dict[tuple[str, _Labels], list[float]]) -> dict[tuple[str, _Labels], list[float]]:
    """Lists of adapters of several replicas as one series."""
    lists: dict[str, set[str]] = {label: set() for label in _LISTS}
    most = 0
    for _, labels in values:
        said = dict(labels)
        most = max(most, int(said["max_lora"]))
        for label in _LISTS:
            lists[label] |= set(filter(None, said[label].split(",")))
    joined = {"max_lora": str(most), **{label: ",".join(sorted(names)) for label, names in lists.items()}}
    times = [time for each in values.values() for time in each]
    return {("vllm:lora_requests_info", tuple(sorted(joined.items()))): [max(times)]}


class _Fixed(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """What it was made with."""
        yield from self._families
