"""Weights that change over the run -> pieces of constant shares."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from didact.mixtures.mixture import in_samples
from didact.mixtures.schedule import largest_remainder, lay_out, piece_length, split
from didact.mixtures.types import Piece, Stage
from didact.spec import DataSpec

_UNIT = 1 << 40
"""Sum of a piece's shares: fine enough that rounding moves no sample in any run."""


def stages_of(data: DataSpec, num_samples: int) -> tuple[Stage, ...]:
    """The curriculum's stages as positions of a run of `num_samples`; in a short run a stage may be empty."""
    edges = [0, *(round(stage.until * num_samples) for stage in data.curriculum)]
    return tuple(Stage(start, stop) for start, stop in pairwise(edges))


def curriculum_pieces(data: DataSpec, mean_tokens: Sequence[float], num_samples: int) -> tuple[Piece, ...]:
    """What is drawn where under `data.curriculum`.

    With `interpolate: step` a stage's weights hold until its end. With `linear` they are reached at its end, on a
    straight line from those of the stage before, of which each piece takes the value in its middle; the first stage's
    weights hold from the beginning.

    Args:
        data: with a curriculum.
        mean_tokens: mean tokens per row of each source.
        num_samples: of the whole run.
    """
    names = [source.name for source in data.sources]
    weights = [_normalised([stage.weights.get(name, 0.0) for name in names]) for stage in data.curriculum]
    longest, lengths, shares = piece_length(num_samples), [], []
    for index, stage in enumerate(stages_of(data, num_samples)):
        begun, ends = weights[max(0, index - 1)] if data.interpolate == "linear" else weights[index], weights[index]
        position = 0
        for length in split(stage.stop - stage.start, longest):
            progress = (position + length / 2) / (stage.stop - stage.start)
            mixed = [first + (last - first) * progress for first, last in zip(begun, ends, strict=True)]
            lengths.append(length)
            shares.append(_shares(in_samples(mixed, mean_tokens, data.weight_unit)))
            position += length
    return lay_out(lengths, shares)


def _normalised(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    return [weight / total for weight in weights]


def _shares(by_samples: Sequence[float]) -> list[int]:
    exact = [Fraction(weight) for weight in by_samples]
    return largest_remainder([_UNIT * weight / sum(exact) for weight in exact])
