"""What a proxy says of mixtures, and when it is believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from didact.tuning.spaces import Values


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mixtures in the order that a proxy calls best."""

    expected: tuple[float, ...]
    """What it says of the first trials, less being better, in their order."""
    best: tuple[Values, ...]
    """What it ranks best, the best first, without those."""
    at_least: float
    """Rank correlation from which it is believed."""
    problem: str | None = None
    """Why there is no ranking."""

    def correlation(self, measured: Mapping[int, float]) -> float | None:
        """Rank correlation with the first trials, none of which it has seen; None until all of them were measured.

        Args:
            measured: number of a trial -> its goal, less being better.
        """
        if not self.expected or any(number not in measured for number in range(len(self.expected))):
            return None
        found = [measured[number] for number in range(len(self.expected))]
        if np.ptp(found) == 0 or np.ptp(self.expected) == 0:
            return 0.0
        return round(float(spearmanr(self.expected, found).statistic), 6)

    def is_believed(self, measured: Mapping[int, float]) -> bool:
        """Whether it ranks the first trials as they turned out."""
        rho = self.correlation(measured)
        return rho is not None and rho >= self.at_least

    def words(self, measured: Mapping[int, float]) -> str:
        """For people."""
        if self.problem is not None:
            return f"proxy: not followed, since {self.problem}"
        rho = self.correlation(measured)
        if rho is None:
            return f"proxy: not followed, since not all of the first {len(self.expected)} trials were measured"
        said = f"it ranks the first {len(self.expected)} trials with a correlation of {rho:.2f}"
        return (
            f"proxy: {said}" if rho >= self.at_least else f"proxy: not followed, since {said}, below {self.at_least:g}"
        )


def ranking_of(
    named: Sequence[tuple[Values, float]],
    drawn: Sequence[tuple[Values, float]],
    *,
    calibrate: int,
    top: int,
    at_least: float,
) -> tuple[list[Values], Ranking]:
    """First trials that show whether a proxy ranks, and what it ranks best.

    Args:
        named: mixtures that are tried anyway, with what the proxy says of them.
        drawn: others, with what it says.
        calibrate: trials that it is compared with, those of `named` among them.
        top: how many of the best come after them.
        at_least: rank correlation from which it is believed.

    Returns:
        Mixtures to try after the named ones, from the best to the worst in equal steps of rank, and the ranking.
    """
    ordered = sorted(drawn, key=lambda each: each[1])
    places = np.linspace(0, len(ordered) - 1, max(0, calibrate - len(named))).round().astype(int)
    spread = [ordered[place] for place in dict.fromkeys(places.tolist())]
    rest = [values for place, (values, _) in enumerate(ordered) if place not in set(places.tolist())]
    expected = tuple(value for _, value in (*named, *spread))
    return [values for values, _ in spread], Ranking(expected, tuple(rest[:top]), at_least)
