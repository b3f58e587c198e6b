"""What share of the model and of its training state one worker holds."""

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero3"]


@dataclass(frozen=True, slots=True)
class Sharding:
    """Into how many parts each kind of state is cut; 1 means that every worker holds all of it."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    offloaded: bool = False
    """What is cut lies in main memory, beside the accelerator."""

    @classmethod
    def of(cls, strategy: Strategy, num_workers: int, cpu_offload: bool = False) -> "Sharding":
        """The cut of a training strategy (ZeRO, Rajbhandari et al., 2020, section 5; FSDP cuts as its third stage)."""
        everything = num_workers if strategy in ("fsdp", "zero3") else 1
        gradients = num_workers if strategy in ("fsdp", "zero2", "zero3") else 1
        optimizer = num_workers if strategy not in ("none", "ddp") else 1
        return cls(everything, gradients, optimizer, cpu_offload)

    @property
    def weights_elsewhere(self) -> bool:
        """Whether the weights, too, lie in main memory."""
        return self.offloaded and self.weights > 1
