"""Rows that say the same: exact duplicates by digest, near duplicates by MinHash and then by their real similarity."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from didact.datasets.conversation import Conversation
from didact.datasets.quality.near import NearIndex, signatures
from didact.datasets.quality.texts import Compare, compared, digest, shingles

_KEPT_SHINGLES = 4096


@dataclass(frozen=True)
class Texts:
    """All rows of several parts as distinct texts: text t is that of every row with `of_row == t`."""

    of_row: np.ndarray
    """int64 [rows of all parts]: texts are numbered in the order in which they first come."""
    part_starts: np.ndarray
    """int64 [parts + 1]: rows of part p are `part_starts[p]` to `part_starts[p + 1] - 1`."""
    near: NearIndex | None
    """Over texts; None when only equal texts are twins."""
    similarity: Callable[[int, int], float]
    """Jaccard similarity of two texts' five-word runs."""

    @property
    def num_texts(self) -> int:
        """Distinct texts."""
        return int(self.of_row.max()) + 1 if len(self.of_row) else 0

    def likely(self, text: int) -> np.ndarray:
        """int64: texts that may be near duplicates of `text`, the likeliest first."""
        return self.near.candidates(text) if self.near is not None else np.empty(0, np.int64)


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared elements over all elements; 0 for two empty sets."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if shared else 0.0


def index_texts(parts: Sequence[Sequence[Conversation]], compare: Compare, threshold: float | None) -> Texts:
    """Read all parts once and remember digests and signatures, not texts.

    Args:
        parts: rows that can be read again by their position, since likely twins are looked up to be verified.
        compare: what of a conversation counts.
        threshold: similarity of near duplicates; None finds exact ones only.
    """
    of_row: list[int] = []
    first_rows: list[tuple[int, int]] = []
    numbers: dict[bytes, int] = {}

    def distinct() -> Iterator[frozenset[str]]:
        for part, rows in enumerate(parts):
            for index, conversation in enumerate(rows):
                messages = compared(conversation, compare)
                known = len(numbers)
                number = numbers.setdefault(digest(messages), known)
                of_row.append(number)
                if number == known:
                    first_rows.append((part, index))
                    yield shingles(messages) if threshold is not None else frozenset()

    @lru_cache(maxsize=_KEPT_SHINGLES)
    def shingles_of(text: int) -> frozenset[str]:
        part, index = first_rows[text]
        return shingles(compared(parts[part][index], compare))

    near = None
    if threshold is None:
        for _ in distinct():
            pass
    else:
        near = NearIndex(signatures(distinct()), threshold)
    starts = np.concatenate([[0], np.cumsum([len(rows) for rows in parts])]).astype(np.int64)
    return Texts(
        np.array(of_row, np.int64), starts, near, lambda left, right: jaccard(shingles_of(left), shingles_of(right))
    )
