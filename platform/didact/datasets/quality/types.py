"""What the checks of quality take and find."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from didact.datasets.dataset import Dataset


@dataclass(frozen=True, slots=True)
class EvalText:
    """One question of an evaluation."""

    set_name: str
    """The evaluation set or task."""
    item: str
    """The question's place or name in it."""
    text: str


@dataclass(frozen=True, slots=True)
class Match:
    """Words that a training row shares with a question."""

    set_name: str
    item: str
    words: str
    """The shared words, normalised."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A row that says the same."""

    source: str
    row: int
    """Raw row in that source."""
    held_out: bool
    similarity: float
    """Jaccard similarity of five-word runs; 1 for exact duplicates, and for rows that differ in punctuation alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why one training row was counted."""

    row: int
    """Raw row in its source."""
    reason: str
    """`exact_duplicate`, `near_duplicate` or `contaminated:<set>`."""
    cause: Match | Twin


@dataclass(frozen=True, slots=True)
class Kept:
    """What a filter leaves of one data set."""

    keep: np.ndarray
    """bool [training rows]: False for a row that goes, in the order of `Dataset.train`."""
    dropped: Mapping[str, int]
    """Reason -> rows that go; each is counted once."""
    found: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows it was found for; a row may have several reasons. Empty for a filter that does not tell."""
    examples: tuple[Finding, ...] = ()
    """The first rows of each reason."""

    @property
    def num_dropped(self) -> int:
        """Rows that go."""
        return sum(self.dropped.values())


RowFilter = Callable[[Sequence[Dataset]], Sequence[Kept]]
"""Looks at all data sets of a mixture together and says, for each, which training rows stay and why the others go."""
