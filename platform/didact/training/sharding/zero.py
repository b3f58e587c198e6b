"""Optimizer state, gradients and weights cut over workers by DeepSpeed's ZeRO (Rajbhandari et al., 2020).

DeepSpeed cuts, sums, clips and updates; batches, learning rate, loss and checkpoints stay ours. Its own checkpoints are
pickled and belong to one number of workers, so state goes in and out as whole tensors.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from typing_extensions import override

from didact.spec import MethodSpec, ShardingSpec, TrainingSpec
from didact.training.rates import parameter_groups, set_learning_rate
from didact.training.sharding.deepspeed_setup import import_deepspeed, load_cpu_adam
from didact.training.sharding.protocol import Sharding
from didact.training.sharding.replicated import trained_parameters
from didact.training.state import TrainedState, on_cpu
from didact.training.world import World, compute_device

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


class Zero(Sharding):
    """DeepSpeed ZeRO-1, 2 and 3 (`zero1`, `zero2`, `zero3`)."""

    lockstep = True

    def __init__(self, model: torch.nn.Module, spec: TrainingSpec, adapter: MethodSpec | None, world: World) -> None:
        deepspeed = import_deepspeed()
        self._world = world
        self._stage = _STAGES[spec.sharding.strategy]
        self.parameters = trained_parameters(model)
        self._shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        optimizer = _optimizer(parameter_groups(self.parameters, adapter), spec)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=_config(self._stage, spec.sharding, spec.max_grad_norm),
            dist_init_required=False,
        )
        self.model = self._engine  # its forward pass tells DeepSpeed that the next gradients are to be added
        self.device = compute_device()

    @override
    def backward(self, loss: torch.Tensor) -> None:
        """DeepSpeed averages over workers what must be summed."""
        self._engine.backward(loss * self._world.size, scale_wrt_gas=False)

    @override
    def sum_gradients(self, figures: torch.Tensor) -> torch.Tensor:
        """Only the figures: DeepSpeed has summed gradients, or does so in `update`."""
        return self._world.sum(figures.double())

    @override
    def divide_gradients(self, divisor: float) -> None:
        raise TypeError("DeepSpeed clips before gradients could be scaled back; recipes in float16 are refused")

    @override
    def update(self, rate: float, max_norm: float) -> float:
        """Clip, to the norm that DeepSpeed was set up with, and step; it skips the step when the norm is not finite."""
        set_learning_rate(self._optimizer, rate)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    @override
    def clear_gradients(self) -> None:
        pass  # DeepSpeed drops them in its step

    @override
    def state(self) -> TrainedState | None:
        """Gather parameter by parameter; only worker 0 keeps it."""
        whole = import_deepspeed().utils
        self._link()
        step = torch.tensor(float(self._optimizer.optimizer.state[self._flat[0]]["step"]))
        weights, moments = {}, {}
        for name, parameter in self.parameters.items():
            pieces = {key: whole.safe_get_full_optimizer_state(parameter, key) for key in _MOMENTS}
            weight = whole.safe_get_full_fp32_param(parameter)
            if self._world.rank == 0:
                weights[name] = on_cpu(weight).view(self._shapes[name])
                moments[f"step.{name}"] = step.clone()
                moments |= {f"{key}.{name}": on_cpu(piece).view(self._shapes[name]) for key, piece in pieces.items()}
        return TrainedState(weights, moments) if self._world.rank == 0 else None

    @override
    def load(self, state: TrainedState) -> None:
        """Cut the state as DeepSpeed has cut the parameters. Every worker has read the same, so nothing is sent."""
        step = next(tensor for name, tensor in state.moments.items() if name.startswith("step."))
        inner = self._optimizer.optimizer
        for flat in self._flat:
            counted = step.clone() if isinstance(inner, torch.optim.AdamW) else int(step)
            inner.state[flat] = {"step": counted, **{key: torch.zeros_like(flat) for key in _MOMENTS}}
        self._link()
        with import_deepspeed().zero.GatheredParameters(list(self.parameters.values()), modifier_rank=0):
            for name, parameter in self.parameters.items():
                if parameter.shape == self._shapes[name]:  # ZeRO-3 gives the whole to be changed to worker 0 only
                    parameter.data.copy_(state.weights[name])
        for name, parameter in self.parameters.items():
            self._set(parameter, state.weights[name], None)
            for key in _MOMENTS:
                self._set(parameter, state.moments[f"{key}.{name}"], key)

    @property
    def _flat(self) -> list[torch.Tensor]:
        """This worker's share of all trained weights, one tensor a parameter group: what the inner optimizer steps."""
        if self._stage == 3:
            return self._optimizer.fp32_partitioned_groups_flat
        return self._optimizer.single_partition_of_fp32_groups

    def _link(self) -> None:
        """Tell DeepSpeed's access to optimizer state that the state now exists, which it does not see by itself."""
        if self._stage < 3:
            from deepspeed.utils import lazy_init_hp_params_optimizer_state as link

            for parameters, flat in zip(self._optimizer.bit16_groups, self._flat, strict=True):
                link(parameters, flat, self._optimizer.optimizer.state)

    def _set(self, parameter: torch.nn.Parameter, value: torch.Tensor, key: str | None) -> None:
        utils = import_deepspeed().utils
        if self._stage == 3:  # DeepSpeed's setter of whole values misses the padding of uneven shares
            size = parameter.ds_tensor.numel()
            padded = torch.nn.functional.pad(value.flatten(), (0, size * self._world.size - value.numel()))
            share = padded[size * self._world.rank :][:size]
            if key is None:
                utils.safe_set_local_fp32_param(parameter, share)
            else:
                utils.safe_set_local_optimizer_state(parameter, share, key)
        elif key is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, key)


@contextmanager
def gathered(model: torch.nn.Module) -> Iterator[None]:
    """Hold the whole trained weights on every worker inside the block."""
    cut = [parameter for parameter in model.parameters() if parameter.requires_grad and hasattr(parameter, "ds_id")]
    if not cut:
        yield
        return
    with import_deepspeed().zero.GatheredParameters(cut):
        yield


def _optimizer(groups: list[dict[str, object]], spec: TrainingSpec) -> torch.optim.Optimizer:
    if spec.sharding.cpu_offload:
        adam = load_cpu_adam()
        return adam(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay, adamw_mode=True)
    return torch.optim.AdamW(groups, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)


def _config(stage: int, sharding: ShardingSpec, max_grad_norm: float) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False}
    if sharding.cpu_offload:
        pinned = compute_device().type == "cuda"
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pinned}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": pinned}
    return {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only counts with these two; batches are the loader's
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,  # `step` ends a step, however many backward passes went before
        "gradient_clipping": max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }
