"""Rows that a mixture must not train on, found by looking at all its data sets together.

A filter takes the data sets of a mixture and says, for each, which training rows stay and why the others go. It may
look at texts, but what the keys tell costs no reading.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from didact.datasets.load import LEAK
from didact.datasets.shards import KEY, Keys, StoredConversations
from didact.datasets.types import ConversationView, Dataset
from didact.errors import DataError
from didact.logs import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a filter leaves of one data set."""

    keep: np.ndarray
    """bool [train rows]: False for a row that goes."""
    dropped: dict[str, int]
    """Reason -> rows that go."""


RowFilter = Callable[[Sequence[Dataset]], Sequence[Kept]]


def filtered(datasets: Sequence[Dataset], filters: Sequence[RowFilter]) -> tuple[Dataset, ...]:
    """Apply filters one after the other.

    Raises:
        DataError: they leave nothing of a data set to train on.
    """
    left = tuple(datasets)
    for row_filter in filters:
        kept = row_filter(left)
        left = tuple(dataset.without(each.keep, each.dropped) for dataset, each in zip(left, kept, strict=True))
        for dataset, each in zip(left, kept, strict=True):
            if each.dropped:
                counts = ", ".join(f"{reason} {count:,}" for reason, count in each.dropped.items())
                _log.info("source %s: rows dropped: %s", dataset.name, counts)
            if not len(dataset.train):
                raise DataError(
                    f"source {dataset.name!r}: no row is left to train on; dropped: {dict(dataset.dropped)}"
                )
    return left


def drop_leaks(datasets: Sequence[Dataset]) -> list[Kept]:
    """Drop training rows that ask what a held-out row of any of the data sets asks."""
    held_out = [keys.prompts for dataset in datasets for keys in view_keys(dataset.held_out)]
    asked = np.unique(np.concatenate([*held_out, np.zeros(0, dtype=KEY)]))
    kept = []
    for dataset in datasets:
        keep = np.ones(len(dataset.train), dtype=bool)
        if len(asked):
            for keys in view_keys(dataset.train):
                keep[keys.start : keys.start + len(keys.rows)] = ~np.isin(keys.prompts, asked)
        num_leaks = int(np.count_nonzero(~keep))
        kept.append(Kept(keep, {LEAK: num_leaks} if num_leaks else {}))
    return kept


def view_keys(rows: Sequence[object]) -> Iterator[Keys]:
    """The keys of a data set's rows, some thousands at a time; `start` is a place in `rows`.

    Raises:
        DataError: the rows are not stored.
    """
    if not isinstance(rows, ConversationView) or not isinstance(rows.base, StoredConversations):
        raise DataError("only rows that load_dataset has stored have keys")
    start, places = 0, rows.places
    if not len(places):
        return
    for keys in rows.base.key_blocks():
        if isinstance(places, range):
            here = np.arange(max(places.start, keys.start), min(places.stop, keys.start + len(keys.rows)))
        else:
            here = places[slice(*np.searchsorted(places, [keys.start, keys.start + len(keys.rows)]))]
        within = np.asarray(here, dtype=np.int64) - keys.start
        yield Keys(start, keys.rows[within], keys.prompts[within], keys.conversations[within])
        start += len(within)
