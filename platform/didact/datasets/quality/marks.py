"""The rows of one data set while they are looked through."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from didact.datasets.dataset import Dataset
from didact.datasets.quality.types import Finding, Kept, Match, Twin

SHOWN = 5
"""Rows of each reason that are remembered as examples."""


class Marks:
    """Which training rows go, and why."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._keep = np.ones(len(dataset.train), dtype=bool)
        self._dropped: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._examples: list[Finding] = []

    def drop(self, position: int, causes: Mapping[str, Match | Twin]) -> None:
        """A row goes.

        Args:
            position: among the training rows.
            causes: reason -> what it is like; at least one, and the first is the one that the row is counted for.
        """
        self._keep[position] = False
        self._dropped[next(iter(causes))] += 1
        for reason, cause in causes.items():
            if self._found[reason] < SHOWN:
                self._examples.append(Finding(self._dataset.train[position].row, reason, cause))
            self._found[reason] += 1

    def kept(self) -> Kept:
        """What is left."""
        return Kept(self._keep, dict(self._dropped), dict(self._found), tuple(self._examples))
