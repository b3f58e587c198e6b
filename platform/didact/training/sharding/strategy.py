"""The choice among the strategies."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from didact.logs import get_logger
from didact.spec import MethodSpec, TrainingSpec
from didact.training.sharding.fully_sharded import FullySharded, unsharded
from didact.training.sharding.protocol import Sharding
from didact.training.sharding.replicated import Replicated
from didact.training.sharding.zero import Zero, gathered
from didact.training.world import World, compute_device

_LOG = get_logger(__name__)


def shard(model: torch.nn.Module, spec: TrainingSpec, adapter: MethodSpec | None, world: World) -> Sharding:
    """Spread a model over the workers, in place, and make its optimizer.

    Args:
        model: equal on all workers, with the parameters to train requiring gradients.
        spec: strategy and optimizer.
        adapter: the method, for what it asks of the optimizer (LoRA+).
        world: the workers. One alone has nothing to share: unless it offloads from its GPU, it trains plainly.
    """
    chosen = spec.sharding
    offloads = chosen.cpu_offload and compute_device().type != "cpu"
    if chosen.cpu_offload and not offloads:
        _LOG.warning("training.sharding.cpu_offload has little effect here: workers without a GPU hold all in memory")
    if chosen.strategy == "ddp" or (world.size == 1 and not offloads):
        return Replicated(model, spec, adapter, world)
    if chosen.strategy == "fsdp":
        return FullySharded(model, spec, adapter, world)
    return Zero(model, spec, adapter, world)


@contextmanager
def whole_weights(model: torch.nn.Module, world: World) -> Iterator[None]:
    """Inside the block the trained weights are whole on worker 0, for saving. Every worker must enter it."""
    with ExitStack() as stack:
        stack.enter_context(unsharded(model, world))
        stack.enter_context(gathered(model))
        yield
