"""Training rows that have a twin among earlier rows or held-out ones."""

from collections.abc import Sequence
from typing import NamedTuple

from didact.datasets.dataset import Dataset
from didact.datasets.quality.duplicates import Texts, index_texts
from didact.datasets.quality.marks import Marks
from didact.datasets.quality.types import Kept, Twin
from didact.spec import DuplicatesSpec


def find_twins(datasets: Sequence[Dataset], spec: DuplicatesSpec) -> list[Kept]:
    """Of twins the first stays, in the order of data sets and rows; held-out rows always stay.

    Args:
        datasets: training and held-out rows are read by their position.
        spec: what counts as a twin, and where twins are dropped.

    Returns:
        One for each data set, with the reasons `exact_duplicate` and `near_duplicate`.
    """
    # Held-out rows come first: whatever is like them is a twin of an earlier row.
    parts = [dataset.held_out for dataset in datasets] + [dataset.train for dataset in datasets]
    walk = _TwinWalk(index_texts(parts, spec.compare, spec.threshold if spec.near else None), spec, len(datasets))
    kept = []
    for number, dataset in enumerate(datasets):
        marks = Marks(dataset)
        for position in range(len(dataset.train)):
            if (met := walk.visit(number, position)) is not None:
                origin = datasets[met.part % len(datasets)]
                twin = Twin(origin.name, parts[met.part][met.row].row, met.part < len(datasets), met.similarity)
                marks.drop(position, {"exact_duplicate" if met.exact else "near_duplicate": twin})
        kept.append(marks.kept())
    return kept


class _Met(NamedTuple):
    part: int
    row: int
    similarity: float
    exact: bool


class _TwinWalk:
    """Goes over training rows in order and remembers which texts were kept, and in which part."""

    def __init__(self, texts: Texts, spec: DuplicatesSpec, num_sources: int) -> None:
        self._texts = texts
        self._spec = spec
        self._num_sources = num_sources
        self._kept: dict[int, dict[int, int]] = {}
        """Text -> part -> the first row of it that stays."""
        for part in range(num_sources):
            for row, text in enumerate(texts.of_row[texts.part_starts[part] : texts.part_starts[part + 1]]):
                self._kept.setdefault(int(text), {}).setdefault(part, row)

    def visit(self, source: int, position: int) -> _Met | None:
        """The twin for which a training row goes; None when it stays."""
        part = self._num_sources + source
        text = int(self._texts.of_row[self._texts.part_starts[part] + position])
        if (kept := self._relevant(text, part)) is not None:
            return _Met(*kept, 1.0, True)
        for other in self._texts.likely(text):
            kept = self._relevant(int(other), part)
            if kept is not None and (similarity := self._texts.similarity(text, int(other))) >= self._spec.threshold:
                return _Met(*kept, similarity, False)
        self._kept.setdefault(text, {}).setdefault(part, position)
        return None

    def _relevant(self, text: int, part: int) -> tuple[int, int] | None:
        for other, row in self._kept.get(text, {}).items():
            policy = self._spec.within if other == part else self._spec.across
            if other < self._num_sources or policy == "drop":
                return other, row
        return None
