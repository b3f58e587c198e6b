"""The base's weights cut over workers, block by block, with PyTorch's FSDP2 (Zhao et al., 2023).

What is large and frozen is cut; an adapter is small and stays whole on every worker, so its gradients are summed in one
message a step, its optimizer is the plain one, and mixed number formats meet in no message. When weights of the base
itself are trained they, their gradients and AdamW's moments are cut.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from typing_extensions import override

from didact.models import repeated_blocks
from didact.spec import MethodSpec, ShardingSpec, TrainingSpec
from didact.training.sharding.replicated import Replicated
from didact.training.world import World, compute_device


class FullySharded(Replicated):
    """FSDP2 (`fsdp`)."""

    lockstep = True

    def __init__(self, model: torch.nn.Module, spec: TrainingSpec, adapter: MethodSpec | None, world: World) -> None:
        trains_base = adapter is not None and adapter.trains_base
        _cut(model, spec.sharding, world, trains_base=trains_base)
        super().__init__(model, spec, adapter, world)
        self.device = compute_device()

    @override
    def sum_gradients(self, figures: torch.Tensor) -> torch.Tensor:
        """Gradients of cut parameters were summed in each backward pass; those of whole ones are summed here."""
        if not any(isinstance(parameter, DTensor) for parameter in self.parameters.values()):
            return super().sum_gradients(figures)
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return self._world.sum(figures.double())


@contextmanager
def unsharded(model: torch.nn.Module, world: World) -> Iterator[None]:
    """Inside the block worker 0 has the whole trained weights, on the CPU; gathered one by one."""
    cut = [
        (module, name, parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(parameter, DTensor) and parameter.requires_grad
    ]
    whole: dict[torch.nn.Parameter, torch.nn.Parameter] = {}  # a tied weight stands in two modules
    for parameter in dict.fromkeys(parameter for _, _, parameter in cut):
        gathered = parameter.full_tensor()
        if world.rank == 0:
            whole[parameter] = torch.nn.Parameter(gathered.detach().cpu())
    try:
        for module, name, parameter in cut:
            setattr(module, name, whole.get(parameter, parameter))
        yield
    finally:
        for module, name, parameter in cut:
            setattr(module, name, parameter)


def _cut(model: torch.nn.Module, spec: ShardingSpec, world: World, *, trains_base: bool) -> None:
    """Replace the weights by this worker's shares; the model must lie on one device, the workers' own or the CPU."""
    device = compute_device()
    gpu = device.type == "cuda"
    mesh = init_device_mesh(device.type, (world.size,))
    whole = set() if trains_base else {parameter for parameter in model.parameters() if parameter.requires_grad}
    if gpu:  # cut modules move themselves, one block at a time
        for parameter in whole:
            parameter.data = parameter.data.to(device)
    options = {
        "mesh": mesh,
        "reshard_after_forward": spec.reshard_after_forward,
        # Trained weights are float32: gathered as bfloat16 for the products, their gradients summed in float32.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if trains_base and gpu else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        ),
        "offload_policy": CPUOffloadPolicy() if spec.cpu_offload and gpu else OffloadPolicy(),
        "ignored_params": whole,
    }
    for unit in itertools.chain(repeated_blocks(model), [model]):
        fully_shard(unit, **options)
        unit.set_gradient_divide_factor(1.0)  # the loss is divided by the targets of the global batch already
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows sums only
