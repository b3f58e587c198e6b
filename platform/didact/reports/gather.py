"""Everything that the page shows, as figures.

Rows are looked at as they are read, before the recipe leaves any out: under every policy the page says the same of
them. What training sees is told beside it, as the recipe has it.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from didact.datasets import AllRows, Dataset
from didact.datasets.catalog import card_of
from didact.datasets.conversation import Conversation
from didact.datasets.quality import (
    Finding,
    Kept,
    Overlap,
    SourceStatistics,
    filtered,
    measure_overlap,
    row_filters,
    source_statistics,
)
from didact.evaluation import task_texts
from didact.files import read_jsonl
from didact.preparation import (
    DataFacts,
    PreparedData,
    RowScores,
    SourceFacts,
    prepare_data,
    read_sources,
    scores_of_rows,
)
from didact.spec import DataSpec, DuplicatesSpec, FinetuneSpec, SourceSpec

_SHOWN_REJECTS = 3
_SHOWN_SCORED = 7
_SHOWN_CLUSTERS = 12


@dataclass(frozen=True, slots=True)
class RejectGroup:
    """Rows of a source that were refused for one reason."""

    reason: str
    count: int
    examples: tuple[dict[str, Any], ...]
    """The first ones: `file`, `line`, `detail` and `raw`, as in the quarantine file."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """Rows that speak of the same things."""

    words: tuple[str, ...]
    """What tells it from others."""
    rows: int
    stay: int


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """What a source's rows were chosen by."""

    scores: RowScores
    examples: tuple[tuple[float, bool, Conversation], ...]
    """Rows with the highest, middle and lowest figure, that first, and whether each stays."""
    clusters: tuple[ClusterFacts, ...] = ()
    """The largest ones, where the choice looks at clusters."""
    num_clusters: int = 0
    """All of them that have rows."""

    @classmethod
    def of(cls, dataset: Dataset, scores: RowScores) -> "ScoredRows":
        """With the rows that show best what the figure tells."""
        ranked = np.argsort(-scores.values, kind="stable")[: np.count_nonzero(~np.isnan(scores.values))]
        places = dict.fromkeys(int(at) for at in np.linspace(0, len(ranked) - 1, _SHOWN_SCORED).round())
        rows = [int(ranked[place]) for place in places]
        examples = tuple((float(scores.values[row]), bool(scores.keep[row]), dataset.train[row]) for row in rows)
        clusters = _cluster_facts(scores)
        return cls(scores, examples, clusters[:_SHOWN_CLUSTERS], len(clusters))


def _cluster_facts(scores: RowScores) -> tuple[ClusterFacts, ...]:
    """Of rows with a figure; the largest first."""
    if scores.clusters is None:
        return ()
    known, of_row, words = ~np.isnan(scores.values), scores.clusters.of_row, scores.clusters.words
    rows = np.bincount(of_row[known], minlength=len(words))
    stay = np.bincount(of_row[known & scores.keep], minlength=len(words))
    found = (ClusterFacts(words[at], int(rows[at]), int(stay[at])) for at in np.argsort(-rows, kind="stable"))
    return tuple(each for each in found if each.rows)


@dataclass(frozen=True, slots=True)
class SourceReport:
    """One source of the recipe."""

    spec: SourceSpec
    facts: SourceFacts
    """Rows, tokens and what training sees of them."""
    statistics: SourceStatistics
    """Of training and held-out rows, before any of them is left out."""
    rejects: tuple[RejectGroup, ...]
    contaminated: Kept
    """Training rows that hold questions, whatever the recipe does about them."""
    twins: Kept
    """Training rows that have a twin, whatever the recipe does about them."""
    commercial: bool | None
    """Whether the recipe or else the card says that commercial use is allowed."""
    scored: ScoredRows | None = None
    """The figures that rows were chosen by, where the recipe's `choose` asks for it."""

    @property
    def found(self) -> dict[str, int]:
        """Reason -> training rows it was found for; a row may have several reasons."""
        return {**self.contaminated.found, **self.twins.found}

    @property
    def examples(self) -> tuple[Finding, ...]:
        """The first rows of each reason."""
        return self.contaminated.examples + self.twins.examples


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

    @property
    def is_refused(self) -> bool:
        """Whether the recipe does not train because of contaminated rows."""
        policy = self.spec.data.contamination.policy
        return policy == "fail" and any(source.contaminated.num_dropped for source in self.sources)


def gather_report(spec: FinetuneSpec) -> DataReport:
    """Prepare a recipe's data and look at all of it.

    Raises:
        DataError: data that cannot be prepared, or an evaluation set that cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="didact-report-") as folder:
        prepared = prepare_unrefused(spec, Path(folder))
        rejects = [_rejects(dataset) for dataset in prepared.datasets]
    datasets = read_sources(spec)
    texts = list(task_texts(spec.evaluation.tasks if spec.evaluation else ()))
    leaks, *searches = row_filters(_looking(spec.data), lambda: texts)
    left = filtered(datasets, [leaks])
    contaminated, twins = (search(left) for search in searches)
    scored = {
        name: ScoredRows.of(*found) for name, found in scores_of_rows(_unrefused(spec), task_texts=task_texts).items()
    }
    sources = tuple(
        SourceReport(
            source,
            facts,
            source_statistics(dataset.name, AllRows(dataset)),
            rejected,
            asked,
            twin,
            _commercial(source),
            scored.get(source.name),
        )
        for source, facts, dataset, rejected, asked, twin in zip(
            spec.data.sources, DataFacts.of(spec, prepared).sources, datasets, rejects, contaminated, twins, strict=True
        )
    )
    overlap = measure_overlap(
        [dataset.name for dataset in datasets],
        [AllRows(dataset) for dataset in datasets],
        threshold=spec.data.duplicates.threshold,
        compare=spec.data.duplicates.compare,
    )
    against = [each.name for each in spec.data.contamination.against]
    sets = tuple(dict.fromkeys([*(text.set_name for text in texts), *against]))
    return DataReport(spec, sources, overlap, sets, prepared.num_steps, prepared.mixture.fingerprint)


def prepare_unrefused(spec: FinetuneSpec, quarantine: Path | None = None) -> PreparedData:
    """A recipe's data as training sees it; where contaminated rows would stop it, with these rows.

    Args:
        spec: the recipe.
        quarantine: as `prepare_data` takes it.
    """
    return prepare_data(_unrefused(spec), quarantine, task_texts=task_texts)


def _unrefused(spec: FinetuneSpec) -> FinetuneSpec:
    contamination = spec.data.contamination
    if contamination.policy == "fail":
        contamination = contamination.model_copy(update={"policy": "allow"})
    data = spec.data.model_copy(update={"contamination": contamination})
    return spec.model_copy(update={"data": data})


def _looking(data: DataSpec) -> DataSpec:
    """The recipe's data with everything looked for."""
    own = data.duplicates
    duplicates = DuplicatesSpec(within="drop", across="drop", near=True, threshold=own.threshold, compare=own.compare)
    contamination = data.contamination.model_copy(update={"policy": "drop"})
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
