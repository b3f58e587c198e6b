"""Many sources -> one weighted, endless stream of samples, each a pure function of (seed, position)."""

import functools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import attrgetter
from typing import Literal

from didact.errors import DataError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.mixtures.permutation import permuted
from didact.mixtures.schedule import PERIOD, quantise, schedule
from didact.mixtures.types import MixtureRow, Piece, SampleId, Stage
from didact.spec import OnlineMixingSpec

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
    seed: int
    pieces: tuple[Piece, ...] = field(repr=False)
    """What is drawn where; one piece, repeated, when the weights never change."""
    stages: tuple[Stage, ...] = ()
    """The stages of a curriculum; none otherwise."""
    online: OnlineMixingSpec | None = None
    """How later pieces are decided; None where all are known."""

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
        """A mixture of sources with constant weights, given as sequences of equal length.

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
        check_sources(names, rows, mean_tokens)
        _check_weights(names, weights)
        by_samples = in_samples(weights, mean_tokens, unit)
        _warn_lifted(names, by_samples)
        piece = Piece(0, (0,) * len(names), quantise(by_samples))
        return cls(tuple(names), tuple(rows), tuple(mean_tokens), seed, (piece,))

    @property
    def num_rows(self) -> int:
        """Rows of all sources together: the samples of one epoch."""
        return sum(self.rows)

    def then(self, start: int, counts: Sequence[int]) -> "Mixture":
        """The same samples before position `start`; from there on `counts` of each source, again and again."""
        before = tuple(piece for piece in self.pieces if piece.start < start)
        return replace(self, pieces=(*before, Piece(start, tuple(self._drawn(start)), tuple(counts))))

    def sample(self, position: int) -> SampleId:
        """The sample at `position` (from 0). Within one pass over a source no row comes twice.

        Raises:
            ValueError: `position` is negative.
        """
        if position < 0:
            raise ValueError(f"position is {position}; positions count from 0")
        piece = self._piece(position)
        sources, draws = _order(piece.counts)
        repeats, offset = divmod(position - piece.start, len(sources))
        source = sources[offset]
        drawn = piece.drawn[source] + repeats * piece.counts[source] + draws[offset]
        epoch, index = divmod(drawn, self.rows[source])
        row = permuted(index, self.rows[source], (self.seed, self.names[source], epoch))
        return SampleId(source, row, epoch)

    def ids(self, start: int, stop: int) -> tuple[SampleId, ...]:
        """The samples at positions `start` to `stop - 1`."""
        return tuple(self.sample(position) for position in range(start, stop))

    def describe(self, stop: int, start: int = 0) -> tuple[MixtureRow, ...]:
        """What the samples at positions `start` to `stop - 1` draw from each source."""
        samples = [last - first for last, first in zip(self._drawn(stop), self._drawn(start), strict=True)]
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
        counts = [piece.counts for piece in self.pieces]
        # Said only where it holds, so that the fingerprints of all other mixtures are what they were.
        cut = any(one.start + sum(one.counts) != other.start for one, other in pairwise(self.pieces))
        starts = {"starts": [piece.start for piece in self.pieces]} if cut else {}
        online = {"online": self.online.model_dump()} if self.online else {}
        return fingerprint(
            {
                "version": _ORDER_VERSION,
                "names": self.names,
                "rows": self.rows,
                "shares": counts if len(counts) > 1 else counts[0],
                "seed": self.seed,
                "sources": list(source_fingerprints),
                **starts,
                **online,
            }
        )

    def _piece(self, position: int) -> Piece:
        return self.pieces[bisect_right(self.pieces, position, key=attrgetter("start")) - 1]

    def _drawn(self, position: int) -> list[int]:
        """Draws from each source before `position`."""
        piece = self._piece(position)
        sources, _ = _order(piece.counts)
        repeats, offset = divmod(position - piece.start, len(sources))
        begun = [0] * len(self.names)
        for source in sources[:offset]:
            begun[source] += 1
        return [
            before + repeats * count + more
            for before, count, more in zip(piece.drawn, piece.counts, begun, strict=True)
        ]


def in_samples(weights: Sequence[float], mean_tokens: Sequence[float], unit: Literal["tokens", "rows"]) -> list[float]:
    """Weights in `unit` as relative shares of samples."""
    return [weight / mean if unit == "tokens" else weight for weight, mean in zip(weights, mean_tokens, strict=True)]


def check_sources(names: Sequence[str], rows: Sequence[int], mean_tokens: Sequence[float]) -> None:
    """Refuse sources that cannot be mixed.

    Raises:
        DataError: a source without rows or tokens, or two of one name; the source is named.
    """
    if not 1 <= len(names) <= PERIOD:
        raise DataError(f"a mixture takes 1 to {PERIOD:,} sources; data.sources has {len(names):,}")
    if len(set(names)) != len(names):
        raise DataError(f"two sources of the mixture have the same name; found {', '.join(names)} in data.sources")
    for name, num_rows, tokens in zip(names, rows, mean_tokens, strict=True):
        if num_rows < 1:
            raise DataError(f"source {name!r} has no rows to train on; remove it from data.sources or give it data")
        if not (math.isfinite(tokens) and tokens > 0):
            raise DataError(f"source {name!r} has {tokens} tokens per row on average; expected a number above 0")


@functools.lru_cache(maxsize=16)
def _order(counts: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Source at each position of a piece, and the earlier draws from that source within the piece."""
    sources = schedule(counts)
    drawn, draws = [0] * len(counts), []
    for source in sources:
        draws.append(drawn[source])
        drawn[source] += 1
    return sources, tuple(draws)


def _check_weights(names: Sequence[str], weights: Sequence[float]) -> None:
    for name, weight in zip(names, weights, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise DataError(f"source {name!r} has weight {weight}; expected a number from 0 in data.sources")
    if not any(weights):
        raise DataError(f"all weights are 0 ({', '.join(names)}); give at least one of data.sources a weight")


def _warn_lifted(names: Sequence[str], by_samples: Sequence[float]) -> None:
    total = sum(by_samples)
    for name, weight in zip(names, by_samples, strict=True):
        if 0 < weight / total < 1 / PERIOD:
            _log.warning("source %s: its share of samples, %.2g, is raised to 1/%d", name, weight / total, PERIOD)
