"""Shares of sources that follow how fast the training loss of each of them falls.

The rule is that of ADO (Jiang et al. 2024, "Adaptive data optimization: dynamic sample selection with scaling laws",
arXiv 2410.11820): what is still being learned gets more than its prior share, what is learned out gets less. ADO takes
the speed from a power law over the whole of pretraining. A finetuning run is too short for one, so it is the slope of a
line through the last losses here, and speeds that differ no more than their noise are taken to be equal, which leaves
shares at the prior.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from didact.spec import OnlineMixingSpec

Point = tuple[float, float, float]
"""Optimizer step, mean loss in nats a token, targets that it is the mean of."""
_LEAST_POINTS = 3
_TINY = 1e-18


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a loss falls."""

    fall: float
    """Nats a step; below 0 where it rises."""
    variance: float
    """Square of its standard error."""


def online_shares(
    prior: Sequence[float], points: Sequence[Sequence[Point]], spec: OnlineMixingSpec
) -> tuple[float, ...]:
    """Shares of samples for the next steps; they add up to 1.

    Args:
        prior: the recipe's shares of samples, which add up to 1.
        points: of each source, losses of the last steps.
        spec: temperature and floor.
    """
    speeds = [speed(each) for each in points]
    falls = [max(0.0, fall) for fall in shrunk(speeds)]
    middle = math.fsum(part * fall for part, fall in zip(prior, falls, strict=True))
    # With the noise in it, so that losses which no longer fall at all do not make much of what is left of chance.
    noise = [each.variance if each else 0.0 for each in speeds]
    scale = math.sqrt(math.fsum(part * (fall**2 + own) for part, fall, own in zip(prior, falls, noise, strict=True)))
    if scale == 0:
        return tuple(prior)
    raised = [
        part * math.exp((fall - middle) / (scale * spec.temperature)) for part, fall in zip(prior, falls, strict=True)
    ]
    total = math.fsum(raised)
    return tuple(spec.floor * part + (1 - spec.floor) * each / total for part, each in zip(prior, raised, strict=True))


def speed(points: Sequence[Point]) -> Speed | None:
    """Slope of the line through losses by weighted least squares; None where there are fewer than three."""
    if len(points) < _LEAST_POINTS:
        return None
    total = math.fsum(weight for _, _, weight in points)
    mean_step = math.fsum(weight * step for step, _, weight in points) / total
    mean_loss = math.fsum(weight * loss for _, loss, weight in points) / total
    spread = math.fsum(weight * (step - mean_step) ** 2 for step, _, weight in points)
    slope = math.fsum(weight * (step - mean_step) * (loss - mean_loss) for step, loss, weight in points) / spread
    off = math.fsum(weight * (loss - mean_loss - slope * (step - mean_step)) ** 2 for step, loss, weight in points)
    return Speed(-slope, max(_TINY, off / (len(points) - 2) / spread))


def shrunk(speeds: Sequence[Speed | None]) -> list[float]:
    """Each speed moved towards the mean of all as far as its noise says; one that is not known is the mean.

    The variance between sources, beyond noise, is estimated as in a meta-analysis with random effects (DerSimonian and
    Laird 1986, "Meta-analysis in clinical trials"). It is 0 where speeds differ no more than chance explains.
    """
    known = [each for each in speeds if each is not None]
    if not known:
        return [0.0] * len(speeds)
    weights = [1 / each.variance for each in known]
    total = math.fsum(weights)
    mean = math.fsum(weight * each.fall for weight, each in zip(weights, known, strict=True)) / total
    differ = math.fsum(weight * (each.fall - mean) ** 2 for weight, each in zip(weights, known, strict=True))
    free = total - math.fsum(weight * weight for weight in weights) / total
    between = max(0.0, (differ - (len(known) - 1)) / free) if free > 0 else 0.0
    return [
        mean if each is None else mean + between / (between + each.variance) * (each.fall - mean) for each in speeds
    ]
