"""What the loop asks of a strategy."""

from typing import Protocol

import torch

from didact.training.state import TrainedState


class Sharding(Protocol):
    """The trained parameters of a model and their optimizer, however they are spread. Every worker calls alike."""

    lockstep: bool
    """Whether forward and backward passes communicate, so that all workers must do equally many."""
    model: torch.nn.Module
    """Computes the forward pass of training."""
    device: torch.device
    """Where it computes."""
    parameters: dict[str, torch.nn.Parameter]
    """The trained ones, by name in the model."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of this worker's part of the loss."""

    def sum_gradients(self, figures: torch.Tensor) -> torch.Tensor:
        """Make gradients sums over workers. Returns the sums of `figures` [count], float64."""

    def divide_gradients(self, divisor: float) -> None:
        """Undo what the loss was multiplied by."""

    def update(self, rate: float, max_norm: float) -> float:
        """Clip gradients to a global norm of `max_norm` and update with the learning rate.

        Returns the norm before clipping; when it is not finite, no weight has changed.
        """

    def clear_gradients(self) -> None:
        """Forget gradients, for the next step."""

    def state(self) -> TrainedState | None:
        """The state in whole tensors on worker 0; None on the others, which help to gather it."""

    def load(self, state: TrainedState) -> None:
        """Continue from a state, which every worker gives alike."""
