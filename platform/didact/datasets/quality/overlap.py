"""How much of one source is in another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from didact.datasets.conversation import Conversation
from didact.datasets.quality.duplicates import Texts, index_texts
from didact.datasets.quality.texts import Compare


@dataclass(frozen=True, slots=True)
class Overlap:
    """Rows of each source that have a twin in each other; on the diagonal, another such row in the source itself."""

    names: tuple[str, ...]
    num_rows: tuple[int, ...]
    exact: tuple[tuple[int, ...], ...]
    """`exact[a][b]`: rows of a whose text is also in b."""
    near: tuple[tuple[int, ...], ...] | None
    """`near[a][b]`: rows of a with an exact or near duplicate in b; None where only exact ones were looked for."""
    threshold: float | None
    """Jaccard similarity from which rows are near duplicates."""
    compare: Compare

    @property
    def counts(self) -> tuple[tuple[int, ...], ...]:
        """`near` where it was looked for, else `exact`."""
        return self.exact if self.near is None else self.near

    def share(self, left: int, right: int) -> float:
        """Part of the rows of source `left` that have a twin in source `right`, 0 to 1. Not symmetric."""
        return self.counts[left][right] / max(1, self.num_rows[left])

    @property
    def caption(self) -> str:
        """What a cell says."""
        kind = "exact" if self.near is None else f"exact or near ({self.threshold:g})"
        part = "prompts" if self.compare == "prompt" else "rows"
        return f"% of the {part} of each line's source that have an {kind} duplicate in the column's source"

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "names": list(self.names),
            "num_rows": list(self.num_rows),
            "compare": self.compare,
            "threshold": self.threshold,
            "exact": [list(row) for row in self.exact],
            "near": None if self.near is None else [list(row) for row in self.near],
            "shares": [[self.share(a, b) for b in range(len(self.names))] for a in range(len(self.names))],
        }

    def table(self) -> Table:
        """Shares in percent; columns are numbered as the rows are."""
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("", justify="right", style="dim")
        table.add_column("source", overflow="fold")
        table.add_column("rows", justify="right", no_wrap=True)
        for number in range(len(self.names)):
            table.add_column(str(number + 1), justify="right", no_wrap=True)
        for left, name in enumerate(self.names):
            cells = [percent(self.share(left, right)) for right in range(len(self.names))]
            table.add_row(str(left + 1), escape(name), f"{self.num_rows[left]:,}", *cells)
        return table


def percent(share: float) -> str:
    """A share in few characters: nothing is `-`, and neither a little is 0 nor almost all is 100."""
    if share == 0:
        return "-"
    if share == 1:
        return "100"
    if share < 0.001:
        return "<.1"
    return f"{100 * share:.1f}" if share < 0.0995 or share > 0.995 else f"{100 * share:.0f}"


def measure_overlap(
    names: Sequence[str],
    parts: Sequence[Sequence[Conversation]],
    *,
    threshold: float | None = 0.8,
    compare: Compare = "conversation",
) -> Overlap:
    """Compare every source with every other and with itself.

    Args:
        names: one for each part.
        parts: rows of each source.
        threshold: similarity of near duplicates; None looks for exact ones only.
        compare: what of a conversation counts.
    """
    texts = index_texts(parts, compare, threshold)
    counts = _counts(texts, len(parts))
    exact = _rows_with_twins(counts, np.zeros_like(counts, dtype=bool))
    near = None if threshold is None else _rows_with_twins(counts, _reached(texts, counts > 0, threshold))
    return Overlap(tuple(names), tuple(len(rows) for rows in parts), exact, near, threshold, compare)


def _counts(texts: Texts, num_parts: int) -> np.ndarray:
    """int64 [texts, parts]: rows with each text in each part."""
    counts = np.zeros((texts.num_texts, num_parts), np.int64)
    for part in range(num_parts):
        np.add.at(counts[:, part], texts.of_row[texts.part_starts[part] : texts.part_starts[part + 1]], 1)
    return counts


def _reached(texts: Texts, present: np.ndarray, threshold: float) -> np.ndarray:
    """bool [texts, parts]: whether a text that is not equal, but near, is in the part."""
    reached = np.zeros_like(present)
    for text in range(texts.num_texts):
        for other in texts.likely(text):
            news = (present[other] & ~reached[text]).any() or (present[text] & ~reached[other]).any()
            # Most pairs of a large cluster tell nothing new and need not be verified.
            if other > text and news and texts.similarity(text, int(other)) >= threshold:
                reached[text] |= present[other]
                reached[other] |= present[text]
    return reached


def _rows_with_twins(counts: np.ndarray, reached: np.ndarray) -> tuple[tuple[int, ...], ...]:
    matrix = counts.T @ ((counts > 0) | reached)
    np.fill_diagonal(matrix, (counts * ((counts > 1) | reached)).sum(axis=0))
    return tuple(tuple(int(count) for count in row) for row in matrix)
