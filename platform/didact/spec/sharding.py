"""How a run's state is spread over its workers."""

from typing import Literal

from pydantic import model_validator

from didact.spec.base import Spec


class ShardingSpec(Spec):
    """What each worker holds. All strategies give the same losses and the same adapter."""

    strategy: Literal["ddp", "fsdp", "zero1", "zero2", "zero3"] = "ddp"
    """`ddp`: every worker holds everything. `fsdp`: the base cut over workers, block by block, by PyTorch. DeepSpeed:
    optimizer state cut (`zero1`), gradients too (`zero2`), weights too (`zero3`)."""
    cpu_offload: bool = False
    """Keep what is cut in the workers' main memory: weights (`fsdp`, `zero3`) and optimizer state (all but `ddp`)."""
    reshard_after_forward: bool = True
    """`fsdp` only. False keeps a block's weights whole between forward and backward: more memory, less traffic."""

    @property
    def cuts_weights(self) -> bool:
        """Whether a worker holds only its share of the base's weights."""
        return self.strategy in ("fsdp", "zero3")

    @model_validator(mode="after")
    def _possible(self) -> "ShardingSpec":
        if self.cpu_offload and self.strategy == "ddp":
            raise ValueError("cpu_offload moves what is cut, and strategy 'ddp' cuts nothing; choose another strategy")
        if not self.reshard_after_forward and self.strategy != "fsdp":
            raise ValueError(f"reshard_after_forward is an option of strategy 'fsdp'; found {self.strategy!r}")
        return self
