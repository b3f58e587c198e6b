"""What the checks of quality take and find."""

from dataclasses import dataclass

import numpy as np


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
class RowFilter:
    """Which training rows of a source stay."""

    source: str
    keep: np.ndarray
    """bool [training rows]: in the order of `Dataset.train`."""
    found: dict[str, int]
    """Reason -> rows it was found for, dropped or not; a row may have several reasons."""
    num_contaminated: int
    """Rows that hold a question of any evaluation set."""
    examples: tuple[Finding, ...]
    """The first rows of each reason."""

    @property
    def num_dropped(self) -> int:
        """Rows that do not stay."""
        return int(len(self.keep) - np.count_nonzero(self.keep))
