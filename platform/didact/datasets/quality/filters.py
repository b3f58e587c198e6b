"""Which training rows of a recipe stay: each filter looks at what the ones before it have left.

    drop_leaks -> contaminated rows -> duplicates

Leaks are told by keys alone. The others read every text, so what they find is remembered, and nothing is looked for
that the recipe lets stay.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np

from didact import files
from didact.datasets.dataset import Dataset
from didact.datasets.quality.contamination import ContaminationIndex, find_contaminated, refuse_contaminated
from didact.datasets.quality.evaluation_sets import against_texts
from didact.datasets.quality.leaks import drop_leaks
from didact.datasets.quality.remembered import remembered
from didact.datasets.quality.twins import find_twins
from didact.datasets.quality.types import EvalText, Kept, RowFilter
from didact.errors import DataError
from didact.logs import get_logger
from didact.spec import ContaminationSpec, DataSpec, DuplicatesSpec

_log = get_logger(__name__)


def row_filters(data: DataSpec, task_texts: Callable[[], Iterable[EvalText]]) -> tuple[RowFilter, ...]:
    """The filters that a recipe asks for, in the order in which they are applied.

    Contaminated rows go first, so that of two twins no contaminated one stays.

    Args:
        data: `duplicates` and `contamination` decide.
        task_texts: gives the questions of the recipe's own tasks; called where they are looked for. The sets of
            `data.contamination.against` are read beside them.
    """
    duplicates, contamination = data.duplicates, data.contamination
    filters: list[RowFilter] = [drop_leaks]
    if contamination.policy != "allow":
        filters.append(partial(_contaminated, contamination=contamination, task_texts=task_texts))
    if "drop" in (duplicates.within, duplicates.across):
        filters.append(partial(_twins, duplicates=duplicates))
    elif duplicates.near:
        _log.warning("data.duplicates.near has no effect: neither data.duplicates.within nor across is drop")
    return tuple(filters)


def filtered(datasets: Sequence[Dataset], filters: Sequence[RowFilter]) -> tuple[Dataset, ...]:
    """Apply filters one after the other.

    Raises:
        DataError: they leave nothing of a data set to train on, or one of them refuses what it found.
    """
    left = tuple(datasets)
    for row_filter in filters:
        kept = row_filter(left)
        left = tuple(dataset.without(each.keep, each.dropped) for dataset, each in zip(left, kept, strict=True))
        for dataset, each in zip(left, kept, strict=True):
            if each.dropped:
                counts = ", ".join(f"{reason} {count:,}" for reason, count in each.dropped.items())
                _log.debug("source %s: rows dropped: %s", dataset.name, counts)
            if not len(dataset.train):
                raise DataError(
                    f"source {dataset.name!r}: no row is left to train on; dropped: {dict(dataset.dropped)}"
                )
    return left


def _contaminated(
    datasets: Sequence[Dataset], contamination: ContaminationSpec, task_texts: Callable[[], Iterable[EvalText]]
) -> list[Kept]:
    texts = [*task_texts(), *against_texts(contamination)]
    if not texts:
        return [Kept(np.ones(len(dataset.train), dtype=bool), {}) for dataset in datasets]
    question = {
        "search": "contaminated",
        "ngram": contamination.ngram,
        # By the names of their files, wherever these lie.
        "texts": files.fingerprint([[text.set_name, Path(text.item).name, text.text] for text in texts]),
    }

    index = cache(partial(ContaminationIndex, texts, contamination.ngram))

    def search(dataset: Dataset) -> list[Kept]:
        return [find_contaminated(dataset, index())]

    # Each on its own, so that another mixture of the same sources finds it.
    kept = [each for dataset in datasets for each in remembered([dataset], question, partial(search, dataset))]
    if contamination.policy == "fail":
        refuse_contaminated(datasets, kept)
    return kept


def _twins(datasets: Sequence[Dataset], duplicates: DuplicatesSpec) -> list[Kept]:
    question = {"search": "twins", **duplicates.model_dump()}
    return remembered(datasets, question, partial(find_twins, datasets, duplicates))
