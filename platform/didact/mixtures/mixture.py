"""Many sources -> one weighted, endless stream of samples, each a pure function of (seed, position)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from didact.errors import DataError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.mixtures.permutation import permuted
from didact.mixtures.schedule import PERIOD, quantise, schedule
from didact.mixtures.types import MixtureRow, SampleId

_ORDER_VERSION = 1
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Mixture:
    """An endless stream of sample ids. Needs no state: position 1,000,000 costs as much as position 0."""

    names: tuple[str, ...]
    rows: tuple[int, ...]
    """Training rows of each source."""
    mean_tokens: tuple[float, ...]
    """Mean tokens per row of each source."""
    shares: tuple[int, ...]
    """Share of the samples of each source, in 1/10,000."""
    seed: int
    _sources: tuple[int, ...] = field(repr=False)
    """Source at each position of a period."""
    _draws: tuple[int, ...] = field(repr=False)
    """Earlier draws from that source within the period."""

    @classmethod
    def build(
        cls,
        names: Sequence[str],
        rows: Sequence[int],
        mean_tokens: Sequence[float],
        weights: Sequence[float],
        unit: Literal["tokens", "rows"],
        seed: int,
    ) -> "Mixture":
        """A mixture of sources, given as sequences of equal length.

        Args:
            names: names of the sources, each its own.
            rows: training rows of each.
            mean_tokens: mean tokens per row of each; turns weights in tokens into shares of samples.
            weights: relative weights.
            unit: whether weights are shares of tokens or of rows.
            seed: `data.seed`; decides the order of the rows.

        Raises:
            DataError: a source has no rows, or a number cannot be used; the source is named.
        """
        _check(names, rows, mean_tokens, weights)
        by_samples = [
            weight / tokens if unit == "tokens" else weight for weight, tokens in zip(weights, mean_tokens, strict=True)
        ]
        shares = quantise(by_samples)
        _warn_lifted(names, by_samples)
        sources = schedule(shares)
        drawn, draws = [0] * len(names), []
        for source in sources:
            draws.append(drawn[source])
            drawn[source] += 1
        return cls(tuple(names), tuple(rows), tuple(mean_tokens), shares, seed, sources, tuple(draws))

    @property
    def num_rows(self) -> int:
        """Rows of all sources together: the samples of one epoch."""
        return sum(self.rows)

    def sample(self, position: int) -> SampleId:
        """The sample at `position` (from 0). Within one pass over a source no row comes twice.

        Raises:
            ValueError: `position` is negative.
        """
        if position < 0:
            raise ValueError(f"position is {position}; positions count from 0")
        period, offset = divmod(position, PERIOD)
        source = self._sources[offset]
        epoch, index = divmod(period * self.shares[source] + self._draws[offset], self.rows[source])
        row = permuted(index, self.rows[source], (self.seed, self.names[source], epoch))
        return SampleId(source, row, epoch)

    def ids(self, start: int, stop: int) -> tuple[SampleId, ...]:
        """The samples at positions `start` to `stop - 1`."""
        return tuple(self.sample(position) for position in range(start, stop))

    def describe(self, num_samples: int) -> tuple[MixtureRow, ...]:
        """What the first `num_samples` samples draw from each source."""
        periods, offset = divmod(num_samples, PERIOD)
        started = self._sources[:offset]
        samples = [periods * share + started.count(source) for source, share in enumerate(self.shares)]
        tokens = [count * mean for count, mean in zip(samples, self.mean_tokens, strict=True)]
        total = sum(tokens) or 1.0
        return tuple(
            MixtureRow(name, rows, count, expected, expected / total, count / rows)
            for name, rows, count, expected in zip(self.names, self.rows, samples, tokens, strict=True)
        )

    def fingerprint(self, source_fingerprints: Sequence[str]) -> str:
        """Digest of everything that decides the stream: same fingerprint, same rows in the same order.

        Args:
            source_fingerprints: `Dataset.fingerprint` of each source, in the mixture's order.

        Raises:
            ValueError: not one fingerprint for each source.
        """
        if len(source_fingerprints) != len(self.names):
            raise ValueError(f"{len(source_fingerprints)} fingerprints for {len(self.names)} sources")
        return fingerprint(
            {
                "version": _ORDER_VERSION,
                "names": self.names,
                "rows": self.rows,
                "shares": self.shares,
                "seed": self.seed,
                "sources": list(source_fingerprints),
            }
        )


def _check(names: Sequence[str], rows: Sequence[int], mean_tokens: Sequence[float], weights: Sequence[float]) -> None:
    if not 1 <= len(names) <= PERIOD:
        raise DataError(f"a mixture takes 1 to {PERIOD:,} sources; data.sources has {len(names):,}")
    if len(set(names)) != len(names):
        raise DataError(f"two sources of the mixture have the same name; found {', '.join(names)} in data.sources")
    for name, num_rows, tokens, weight in zip(names, rows, mean_tokens, weights, strict=True):
        if num_rows < 1:
            raise DataError(f"source {name!r} has no rows to train on; remove it from data.sources or give it data")
        if not (math.isfinite(tokens) and tokens > 0):
            raise DataError(f"source {name!r} has {tokens} tokens per row on average; expected a number above 0")
        if not (math.isfinite(weight) and weight > 0):
            raise DataError(f"source {name!r} has weight {weight}; expected a number above 0 in data.sources")


def _warn_lifted(names: Sequence[str], by_samples: Sequence[float]) -> None:
    total = sum(by_samples)
    for name, weight in zip(names, by_samples, strict=True):
        if weight / total < 1 / PERIOD:
            _log.warning("source %s: its share of samples, %.2g, is raised to 1/%d", name, weight / total, PERIOD)
