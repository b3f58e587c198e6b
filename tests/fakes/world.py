"""Several workers as threads of one process, for tests of what does not depend on their number."""

import threading
from dataclasses import dataclass, field
from typing import Any

import torch

from didact.training import World


@dataclass
class Meeting:
    """Where the workers of one run meet."""

    size: int
    values: dict[int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size)


@dataclass(frozen=True)
class ThreadWorld(World):
    """Sums over threads, in the order of ranks, so that every worker gets the same bits."""

    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """See `World.sum`."""
        return values.copy_(sum(self._exchange(values.clone())))

    def agree(self, value: Any) -> Any:
        """See `World.agree`."""
        return self._exchange(value)[0]

    def _exchange(self, value: object) -> list:
        meeting = self.meeting
        meeting.values[self.rank] = value
        meeting.barrier.wait(timeout=60)
        everything = [meeting.values[rank] for rank in range(self.size)]
        meeting.barrier.wait(timeout=60)
        return everything
