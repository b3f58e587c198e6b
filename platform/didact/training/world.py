"""The workers of one run, as the loop sees them: a rank, a size, and sums over all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

_Plain = TypeVar("_Plain")


@dataclass(frozen=True, slots=True)
class World:
    """Data-parallel workers. One process alone is a world of size 1 and communicates nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "World":
        """The world of the initialised process group, or a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over workers, in place; every worker gets the same bits."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter], extra: torch.Tensor) -> torch.Tensor:
        """Sum gradients over workers in one message, together with a few numbers.

        Adapters are small (a few million values), so one flat message at the end of the step costs less than the many
        overlapped ones of DistributedDataParallel, accumulates without `no_sync`, and lets a worker have no samples.

        Args:
            parameters: trained parameters; a missing gradient counts as zero.
            extra: 1-d tensor of numbers to sum along.

        Returns:
            The summed numbers, float64.
        """
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.size == 1:
            return extra.double()
        pieces = [parameter.grad.reshape(-1).float() for parameter in parameters if parameter.grad is not None]
        flat = self.sum(torch.cat([*pieces, extra.float()]))
        offset = 0
        for parameter in parameters:
            count = parameter.numel()
            parameter.grad = flat[offset : offset + count].view_as(parameter).to(parameter.dtype)
            offset += count
        return flat[offset:].double()

    def agree(self, value: _Plain) -> _Plain:
        """Rank 0's value, plain data, on every worker."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def compute_device() -> torch.device:
    """Where the workers of the initialised process group compute: the process's GPU with NCCL, else the CPU."""
    if dist.is_available() and dist.is_initialized() and "nccl" in dist.get_backend():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
