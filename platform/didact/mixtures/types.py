"""What a mixture consists of and what it hands on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SampleId:
    """One draw: row `row` of source `source`, which has been passed over `epoch` times before."""

    source: int
    """Index in the mixture's `names`."""
    row: int
    """Index in the source's training rows, 0 <= row < rows."""
    epoch: int
    """Complete passes over this source before this draw."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive positions with constant shares. The last piece of a mixture repeats without end."""

    start: int
    """Its first position."""
    drawn: tuple[int, ...]
    """Draws from each source before `start`."""
    counts: tuple[int, ...]
    """Draws from each source within the piece; their sum is its length."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run that the recipe speaks of: positions `start` to `stop - 1`."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class MixtureRow:
    """One source's part in some of the samples of a mixture."""

    name: str
    rows: int
    """Training rows the source has."""
    samples: int
    """Draws from it."""
    tokens: float
    """Expected tokens: draws times mean tokens per row."""
    share_of_tokens: float
    """Part of the expected tokens of all sources, 0 to 1."""
    epochs: float
    """Passes over the source's rows."""
