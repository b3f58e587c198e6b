"""What a mixture hands on."""

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
class MixtureRow:
    """One source's part in the first samples of a mixture."""

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
