"""Which accelerators run a model: the fewest, and of the settings that fit on them the cheapest."""

from dataclasses import dataclass

from didact.models.footprint.estimate import Demand, Footprint
from didact.models.footprint.sharding import Sharding, Strategy

_COUNTS = (1, 2, 4, 8, 16, 32, 64)
# Cheapest first: less traffic between the workers, and none to main memory.
_STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero2", "fsdp")


@dataclass(frozen=True, slots=True)
class Fit:
    """A setting that fits."""

    count: int
    strategy: Strategy
    footprint: Footprint

    def __str__(self) -> str:
        strategy = "" if self.count == 1 else f" {self.strategy}"
        return f"{self.count}{strategy} ({self.footprint.total_gib:.0f} GiB)"


def fewest(demand: Demand, memory_gib: float) -> Fit | None:
    """The smallest number of accelerators of that memory, up to 64, and the cheapest strategy on them.

    Args:
        demand: of one worker.
        memory_gib: of one accelerator.
    """
    for count in _COUNTS:
        for strategy in _STRATEGIES if count > 1 else ("ddp",):
            footprint = demand.footprint(Sharding.of(strategy, count))
            if footprint.total_gib <= memory_gib:
                return Fit(count, strategy, footprint)
    return None
