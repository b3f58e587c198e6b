"""Everything that the page shows, as figures."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from didact.datasets import Dataset
from didact.datasets.catalog import card_of
from didact.datasets.quality import (
    AllRows,
    EvalText,
    Overlap,
    RowFilter,
    SourceStatistics,
    against_texts,
    measure_overlap,
    row_filters,
    source_statistics,
)
from didact.evaluation import task_texts
from didact.files import read_jsonl
from didact.spec import DataSpec, DuplicatesSpec, FinetuneSpec, SourceSpec
from didact.training import describe_data, prepare_data

_SHOWN_REJECTS = 3


@dataclass(frozen=True, slots=True)
class RejectGroup:
    """Rows of a source that were refused for one reason."""

    reason: str
    count: int
    examples: tuple[dict[str, Any], ...]
    """The first ones: `file`, `line`, `detail` and `raw`, as in the quarantine file."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source of the recipe."""

    spec: SourceSpec
    record: dict[str, Any]
    """Rows, tokens and what training sees of them, as `describe_data` tells."""
    statistics: SourceStatistics
    """Of training and held-out rows."""
    rejects: tuple[RejectGroup, ...]
    filter: RowFilter
    """Duplicates and contaminated rows among the training rows, whatever the recipe does about them."""
    commercial: bool | None
    """Whether the recipe or else the card says that commercial use is allowed."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """A recipe's data."""

    spec: FinetuneSpec
    sources: tuple[SourceReport, ...]
    overlap: Overlap
    evaluation_sets: tuple[str, ...]
    """The sets that training rows were compared with."""
    num_steps: int
    fingerprint: str
    """Of the mixture."""


def gather_report(spec: FinetuneSpec) -> DataReport:
    """Prepare a recipe's data and look at all of it.

    Raises:
        DataError: data that cannot be prepared, or an evaluation set that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="didact-report-") as folder:
        prepared = prepare_data(spec, Path(folder))
        rejects = [_rejects(dataset) for dataset in prepared.datasets]
    texts = list(_evaluation_texts(spec))
    filters = row_filters(prepared.datasets, _looking(spec.data), texts)
    sources = tuple(
        SourceReport(
            source, record, source_statistics(dataset.name, AllRows(dataset)), groups, found, _commercial(source)
        )
        for source, record, dataset, groups, found in zip(
            spec.data.sources, describe_data(spec, prepared), prepared.datasets, rejects, filters, strict=True
        )
    )
    overlap = measure_overlap(
        [dataset.name for dataset in prepared.datasets],
        [AllRows(dataset) for dataset in prepared.datasets],
        threshold=spec.data.duplicates.threshold,
        compare=spec.data.duplicates.compare,
    )
    sets = tuple(dict.fromkeys(text.set_name for text in texts))
    return DataReport(spec, sources, overlap, sets, prepared.num_steps, prepared.mixture.fingerprint)


def _evaluation_texts(spec: FinetuneSpec) -> Iterator[EvalText]:
    tasks = spec.evaluation.tasks if spec.evaluation else ()
    return chain(task_texts(tasks), against_texts(spec.data.contamination))


def _looking(data: DataSpec) -> DataSpec:
    """The recipe's data with everything looked for and nothing refused."""
    own = data.duplicates
    duplicates = DuplicatesSpec(within="drop", across="drop", near=True, threshold=own.threshold, compare=own.compare)
    contamination = data.contamination.model_copy(update={"policy": "allow"})
    return data.model_copy(update={"duplicates": duplicates, "contamination": contamination})


def _rejects(dataset: Dataset) -> tuple[RejectGroup, ...]:
    if dataset.quarantine is None:
        return ()
    counts: dict[str, int] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(dataset.quarantine):
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
        if counts[row["reason"]] <= _SHOWN_REJECTS:
            examples.setdefault(row["reason"], []).append(row)
    most_first = sorted(counts, key=lambda reason: (-counts[reason], reason))
    return tuple(RejectGroup(reason, counts[reason], tuple(examples[reason])) for reason in most_first)


def _commercial(source: SourceSpec) -> bool | None:
    card = card_of(source)
    return source.commercial if source.commercial is not None else card.commercial if card else None
