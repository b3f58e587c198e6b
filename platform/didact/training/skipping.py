"""Steps whose numbers are not finite: passed over while the recipe allows it, else the end of training."""

import torch

from didact.errors import TrainingDiverged
from didact.logs import get_logger

_LOG = get_logger(__name__)
_KEY = "skipped_steps"


class SkippedSteps:
    """Counts over the whole run the steps that changed nothing. Alike on all workers, which see the same sums."""

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._last = ("", "")
        self.count = 0

    @property
    def too_many(self) -> bool:
        """Whether more were skipped than `training.max_skipped_steps`."""
        return self.count > self._allowed

    def add(self, step: int, loss: float, norm: float, sample_ids: tuple[str, ...]) -> None:
        """Count optimizer step `step` (from 0), whose loss or gradient norm is NaN or infinite."""
        self.count += 1
        shown = ", ".join(sample_ids[:8]) + (" ..." if len(sample_ids) > 8 else "")
        self._last = f"step {step + 1} has loss {loss} and gradient norm {norm}", f"Samples of the step: {shown}"
        if not self.too_many:
            _LOG.warning("%s; skipped, %d of at most %d. %s", self._last[0], self.count, self._allowed, self._last[1])

    def check(self) -> None:
        """End training when too many steps were skipped.

        Raises:
            TrainingDiverged: names the last skipped step and its samples.
        """
        if not self.too_many:
            return
        found, samples = self._last
        earlier = f" after {self.count - 1} skipped ones" if self.count > 1 else ""
        raise TrainingDiverged(
            f"{found}{earlier}; training stopped before changing the weights. {samples}. The last checkpoint is "
            "finite: lower training.learning_rate, check these rows, or allow some with training.max_skipped_steps"
        )

    def metrics(self) -> dict[str, float]:
        """The count, once there is one."""
        return {"train/skipped_steps": float(self.count)} if self.count else {}

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds."""
        return {_KEY: torch.tensor(self.count)} if self.count else {}

    def load_state(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Put back the count; returns the rest of a checkpoint's state."""
        self.count = int(state.get(_KEY, 0))
        return {name: tensor for name, tensor in state.items() if name != _KEY}
