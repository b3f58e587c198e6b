"""Which training rows of a recipe stay: without twins and without questions of an evaluation, as the recipe says."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from didact.datasets.quality.contamination import ContaminationIndex
from didact.datasets.quality.duplicates import Texts, index_texts
from didact.datasets.quality.types import EvalText, Finding, Match, RowFilter, Twin
from didact.datasets.types import Dataset
from didact.errors import DataError
from didact.logs import get_logger
from didact.spec import DataSpec, DuplicatesSpec

_SHOWN = 5
_log = get_logger(__name__)


@dataclass(slots=True)
class _Rows:
    """One source while its rows are looked through."""

    dataset: Dataset
    keep: np.ndarray
    found: Counter[str] = field(default_factory=Counter)
    num_contaminated: int = 0
    examples: list[Finding] = field(default_factory=list)

    def add(self, index: int, reason: str, cause: Match | Twin, *, drop: bool) -> None:
        if self.found[reason] < _SHOWN:
            self.examples.append(Finding(self.dataset.train[index].row, reason, cause))
        self.found[reason] += 1
        if drop:
            self.keep[index] = False


def row_filters(
    datasets: Sequence[Dataset], data: DataSpec, evaluation_texts: Iterable[EvalText] = ()
) -> tuple[RowFilter, ...]:
    """Find duplicates and contaminated rows, and decide which training rows stay.

    Contaminated rows are looked for first, so that of two twins no contaminated one is kept. Of twins the first stays,
    in the order of sources and rows; held-out rows always stay. What the recipe neither drops nor asks about costs
    nothing.

    Args:
        datasets: one for each of `data.sources`, in that order; training and held-out rows are read by their place.
        data: `duplicates` and `contamination` decide.
        evaluation_texts: the questions of every evaluation: those of `data.contamination.against` and of the recipe's
            own tasks.

    Returns:
        One filter a dataset.

    Raises:
        DataError: contaminated rows where `data.contamination.policy` is `fail`.
    """
    sources = [_Rows(dataset, np.ones(len(dataset.train), bool)) for dataset in datasets]
    _find_contaminated(sources, data, evaluation_texts)
    if data.contamination.policy == "fail":
        _refuse_contaminated(sources)
    duplicates = data.duplicates
    if "drop" in (duplicates.within, duplicates.across):
        _find_twins(sources, duplicates)
    elif duplicates.near:
        _log.warning("data.duplicates.near has no effect: neither data.duplicates.within nor across is drop")
    return tuple(
        RowFilter(each.dataset.name, each.keep, dict(each.found), each.num_contaminated, tuple(each.examples))
        for each in sources
    )


def _find_contaminated(sources: Sequence[_Rows], data: DataSpec, texts: Iterable[EvalText]) -> None:
    index = ContaminationIndex(texts, data.contamination.ngram)
    if not index.num_questions:
        return
    drop = data.contamination.policy == "drop"
    for each in sources:
        for place, matches in enumerate(index.search(each.dataset.train)):
            each.num_contaminated += bool(matches)
            for match in matches:
                each.add(place, f"contaminated:{match.set_name}", match, drop=drop)


def _refuse_contaminated(sources: Sequence[_Rows]) -> None:
    bad = [each for each in sources if each.found]
    if not bad:
        return
    lines = []
    for each in sorted(bad, key=lambda each: -each.found.total()):
        counts = ", ".join(f"{count:,} rows with questions of {_set(reason)}" for reason, count in each.found.items())
        lines.append(f"  - {each.dataset.name}: {counts}")
        longest = sorted(_matches(each), key=lambda pair: -len(pair[1].words))
        lines += [f"      row {row}: {match.set_name} {match.item}: {match.words!r}" for row, match in longest[:_SHOWN]]
    raise DataError(
        "training rows hold questions of an evaluation; set data.contamination.policy to drop, or remove the sources:\n"
        + "\n".join(lines)
    )


def _set(reason: str) -> str:
    return reason.partition(":")[2]


def _matches(source: _Rows) -> Iterator[tuple[int, Match]]:
    for finding in source.examples:
        if isinstance(finding.cause, Match):
            yield finding.row, finding.cause


def _find_twins(sources: Sequence[_Rows], spec: DuplicatesSpec) -> None:
    # Held-out rows come first: whatever is like them is a twin of an earlier row.
    parts = [each.dataset.held_out for each in sources] + [each.dataset.train for each in sources]
    walk = _TwinWalk(index_texts(parts, spec.compare, spec.threshold if spec.near else None), spec, len(sources))
    for number, each in enumerate(sources):
        for place in range(len(each.dataset.train)):
            if each.keep[place] and (met := walk.visit(number, place)) is not None:
                origin = sources[met.part % len(sources)].dataset
                twin = Twin(origin.name, parts[met.part][met.row].row, met.part < len(sources), met.similarity)
                each.add(place, "exact_duplicate" if met.exact else "near_duplicate", twin, drop=True)


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

    def visit(self, source: int, place: int) -> _Met | None:
        """The twin for which a training row goes; None when it stays."""
        part = self._num_sources + source
        text = int(self._texts.of_row[self._texts.part_starts[part] + place])
        if (kept := self._relevant(text, part)) is not None:
            return _Met(*kept, 1.0, True)
        for other in self._texts.likely(text):
            kept = self._relevant(int(other), part)
            if kept is not None and (similarity := self._texts.similarity(text, int(other))) >= self._spec.threshold:
                return _Met(*kept, similarity, False)
        self._kept.setdefault(text, {}).setdefault(part, place)
        return None

    def _relevant(self, text: int, part: int) -> tuple[int, int] | None:
        for other, row in self._kept.get(text, {}).items():
            policy = self._spec.within if other == part else self._spec.across
            if other < self._num_sources or policy == "drop":
                return other, row
        return None
