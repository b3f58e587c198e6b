"""Makes a loop fail where a test says so. Only a run folder with a `failpoint` file ever gets here."""

import re
import sys
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from didact.failpoints import Failpoints
from didact.training.callbacks import Callback, StepReport

_SCRATCH = re.compile(r"/checkpoints/\.step-(\d+)\.\w+\.tmp$")


class FaultInjection(Callback):
    """Strikes armed faults at these places of one worker, counted by optimizer step from 1:

    `forward` and `after_forward` around the first forward pass, `between` before the second, `gradient` (numbers of one
    parameter), `update` before the optimizer's update, `step` after all other callbacks, `save` before a checkpoint's
    folder is renamed to its final name.
    """

    def __init__(self, failpoints: Failpoints, model: torch.nn.Module, rank: int) -> None:
        self._failpoints, self._model, self._rank = failpoints, model, rank
        self._step = 0
        self._forwards = 0
        self._hooks: list[RemovableHandle] = []

    @override
    def on_start(self, start: int, num_steps: int) -> None:
        """Hook into model, optimizer and file system."""
        self._step = start + 1
        parameter = next(each for each in self._model.parameters() if each.requires_grad)
        self._hooks = [
            self._model.register_forward_pre_hook(self._before_forward),
            self._model.register_forward_hook(self._after_forward),
            parameter.register_hook(self._on_gradient),
            register_optimizer_step_pre_hook(self._before_update),
        ]
        if any(fault.place == "save" and not fault.marker.exists() for fault in self._failpoints.faults):
            sys.addaudithook(self._on_event)  # stays for the life of the process

    @override
    def on_step(self, report: StepReport) -> None:
        """A step is done, and recorded and reported where this is the last callback."""
        self._strike("step")
        self._step, self._forwards = report.step + 1, 0

    @override
    def close(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _strike(self, place: str) -> float | None:
        return self._failpoints.strike(place, self._rank, self._step)

    def _before_forward(self, module: torch.nn.Module, inputs: Any) -> None:
        if module.training:
            self._forwards += 1
            if self._forwards <= 2:
                self._strike("forward" if self._forwards == 1 else "between")

    def _after_forward(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if module.training and self._forwards == 1:
            self._strike("after_forward")

    def _on_gradient(self, gradient: torch.Tensor) -> torch.Tensor | None:
        factor = self._strike("gradient")
        return None if factor is None else gradient * factor

    def _before_update(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._strike("update")

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "os.rename" and (found := _SCRATCH.search(str(args[0]))):
            self._failpoints.strike("save", self._rank, int(found[1]))
