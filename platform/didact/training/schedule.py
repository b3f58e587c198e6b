"""The learning rate as a pure function of the step: nothing to save, nothing to restore."""

import math

from didact.spec import TrainingSpec


def learning_rate(step: int, num_steps: int, spec: TrainingSpec) -> float:
    """Learning rate of optimizer step `step` (from 0) of `num_steps`: linear warm-up, then the schedule's shape."""
    warmup = spec.num_warmup_steps(num_steps)
    if step < warmup:
        return spec.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, num_steps - warmup)
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    if spec.schedule == "linear":
        return spec.learning_rate * (1 - progress)
    return spec.learning_rate
