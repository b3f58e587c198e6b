"""Every worker holds everything; gradients are summed once a step. The plain twin of all other strategies."""

import math

import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from typing_extensions import override

from didact.spec import MethodSpec, TrainingSpec
from didact.training.rates import parameter_groups, set_learning_rate
from didact.training.sharding.protocol import Sharding
from didact.training.state import MOMENTS, TrainedState, on_cpu
from didact.training.world import World


class Replicated(Sharding):
    """Data parallelism with one flat sum of gradients (`ddp`)."""

    lockstep = False

    def __init__(self, model: torch.nn.Module, spec: TrainingSpec, adapter: MethodSpec | None, world: World) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.parameters = trained_parameters(model)
        self._world = world
        groups = parameter_groups(self.parameters, adapter)
        self._optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)

    @override
    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    @override
    def sum_gradients(self, figures: torch.Tensor) -> torch.Tensor:
        """Sum gradients and figures over workers; a missing gradient is zero."""
        return self._world.sum_gradients(list(self.parameters.values()), figures)

    @override
    def divide_gradients(self, divisor: float) -> None:
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                parameter.grad.div_(divisor)

    @override
    def update(self, rate: float, max_norm: float) -> float:
        norm = _whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm)).item()
        if math.isfinite(norm):
            set_learning_rate(self._optimizer, rate)
            self._optimizer.step()
        return norm

    @override
    def clear_gradients(self) -> None:
        self._optimizer.zero_grad()

    @override
    def state(self) -> TrainedState | None:
        """Gather what is cut, tensor by tensor; only worker 0 keeps it."""
        weights: dict[str, torch.Tensor] = {}
        moments: dict[str, torch.Tensor] = {}
        for name, parameter in self.parameters.items():
            self._keep(weights, name, parameter)
            for key in MOMENTS if self._optimizer.state else ():  # empty before the first update
                self._keep(moments, f"{key}.{name}", self._optimizer.state[parameter][key])
        return TrainedState(weights, moments) if self._world.rank == 0 else None

    @override
    def load(self, state: TrainedState) -> None:
        """Cut the state as the parameters are, and put it into them and the optimizer."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(_cut_like(parameter, state.weights[name]))
                if not state.moments:
                    continue
                moments = {key: state.moments[f"{key}.{name}"] for key in MOMENTS}
                self._optimizer.state[parameter] = {
                    # The fused optimizer counts steps where it computes.
                    key: moment.to(_device(parameter), copy=True) if key == "step" else _cut_like(parameter, moment)
                    for key, moment in moments.items()
                }

    def _keep(self, kept: dict[str, torch.Tensor], name: str, tensor: torch.Tensor) -> None:
        whole = _whole(tensor)
        if self._world.rank == 0:
            kept[name] = on_cpu(whole)


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _device(parameter: torch.Tensor) -> torch.device:
    return parameter.to_local().device if isinstance(parameter, DTensor) else parameter.device


def _cut_like(parameter: torch.nn.Parameter, tensor: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor` on the parameter's device, cut over workers as the parameter is."""
    if isinstance(parameter, DTensor):
        # Every worker has read the same file, so nothing is sent.
        local = tensor.to(_device(parameter))
        return distribute_tensor(local, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return tensor.to(parameter.device, copy=True)
