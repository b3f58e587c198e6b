"""A limit on passes over a source: what it may not take goes to the others."""

from collections.abc import Sequence
from fractions import Fraction

from didact.errors import DataError
from didact.logs import get_logger
from didact.mixtures.schedule import largest_remainder, lay_out, piece_length, split
from didact.mixtures.types import Piece

_log = get_logger(__name__)


def limited_pieces(
    names: Sequence[str], by_samples: Sequence[float], most: Sequence[int | None], num_samples: int
) -> tuple[Piece, ...]:
    """What is drawn where when no source may be drawn more often than its limit; the limits hold to the sample.

    Args:
        names: of the sources, for messages.
        by_samples: relative shares of samples; one of 0 has a limit of 0.
        most: draws that each source allows in the whole run; None allows any number.
        num_samples: of the whole run.

    Raises:
        DataError: all sources are at their limit and the run asks for more.
    """
    counts = largest_remainder(_filled(names, by_samples, most, num_samples))
    lengths = split(num_samples, piece_length(num_samples))
    return lay_out(lengths, [counts] * len(lengths))


def _filled(
    names: Sequence[str], by_samples: Sequence[float], most: Sequence[int | None], num_samples: int
) -> list[Fraction]:
    if None not in most and (allowed := sum(limit or 0 for limit in most)) < num_samples:
        raise DataError(
            f"the run asks for {num_samples:,} samples, but max_epochs allows {allowed:,} of {', '.join(names)}; lower "
            "training.steps or training.epochs, raise data.max_epochs (or that of a source), or add data"
        )
    exact = [Fraction(weight) for weight in by_samples]
    wanted = [num_samples * weight / sum(exact) for weight in exact]
    filled = list(wanted)
    held: dict[int, int] = {}
    while over := [index for index, limit in enumerate(most) if limit is not None and filled[index] > limit]:
        held |= {index: most[index] or 0 for index in over}
        free = [index for index in range(len(exact)) if index not in held]
        left, weight = num_samples - sum(held.values()), sum(exact[index] for index in free)
        filled = [Fraction(held[i]) if i in held else left * exact[i] / weight for i in range(len(exact))]
    for index, limit in held.items():
        asked = round(wanted[index])
        _log.warning("source %s: max_epochs holds it at %d samples of %d; others fill up", names[index], limit, asked)
    return filled
