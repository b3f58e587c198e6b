"""Which accelerators run a model: the fewest, and of the settings that fit on them the cheapest."""

from collections.abc import Sequence
from dataclasses import dataclass

from didact.models.footprint.estimate import Demand
from didact.models.footprint.footprint import Footprint
from didact.models.footprint.sharding import StateSharding
from didact.spec import ShardingSpec

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
# Cheapest first: less traffic between the workers.
CUT = (ShardingSpec(strategy="ddp"), ShardingSpec(strategy="zero2"), ShardingSpec(strategy="fsdp"))
OFFLOADED = (*CUT[:1], ShardingSpec(strategy="fsdp", cpu_offload=True))


@dataclass(frozen=True, slots=True)
class Fit:
    """A setting that fits."""

    count: int
    sharding: ShardingSpec
    footprint: Footprint

    def __str__(self) -> str:
        plain = self.count == 1 and not self.sharding.cpu_offload
        strategy = "" if plain else f" {self.sharding.strategy}"
        return f"{self.count}{strategy} ({self.footprint.total_gib:.0f} GiB)"


def fewest(demand: Demand, memory_gib: float, choices: Sequence[ShardingSpec] = CUT) -> Fit | None:
    """The smallest number of accelerators of that memory, up to 64, and the first choice that fits on them.

    Args:
        demand: of one worker.
        memory_gib: of one accelerator.
        choices: cheapest first.
    """
    for count in _COUNTS:
        for spec in choices:
            sharding = StateSharding.of(spec, count, trains_base=demand.trains_base, on_cpu=demand.on_cpu)
            footprint = demand.footprint(sharding)
            if footprint.total_gib <= memory_gib:
                return Fit(count, spec, footprint)
    return None
