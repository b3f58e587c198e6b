"""What may listen to the loop."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepReport:
    """One finished optimizer step."""

    step: int
    """Steps done, from 1."""
    num_steps: int
    metrics: dict[str, float]
    sample_ids: tuple[str, ...]
    """`source/row` of the global batch, in mixture order."""
    checkpointed: bool = False
    """Whether the state after this step is safely on disk."""
    draws: dict[str, int] | None = None
    """Samples of each source that the next steps draw, where that was decided after this one."""


class Callback(Protocol):
    """A listener. `close` always runs, also when the loop raises."""

    def on_start(self, start: int, num_steps: int) -> None:
        """The loop begins at step `start` of `num_steps`."""

    def on_step(self, report: StepReport) -> None:
        """A step is done."""

    def close(self) -> None:
        """The loop has ended, well or not."""
