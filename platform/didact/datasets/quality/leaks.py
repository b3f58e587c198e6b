"""Training rows that ask what a held-out row asks. Told by the keys of stored rows, so no text is read."""

from collections.abc import Iterator, Sequence

import numpy as np

from didact.cache.columns import within
from didact.datasets.conversation import ConversationView, Dataset
from didact.datasets.load import LEAK
from didact.datasets.quality.types import Kept
from didact.datasets.stored.reader import Keys, StoredConversations
from didact.datasets.stored.writer import KEY
from didact.errors import DataError


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
        mine = within(places, keys.start, keys.start + len(keys.rows)) - keys.start
        yield Keys(start, keys.rows[mine], keys.prompts[mine], keys.conversations[mine])
        start += len(mine)
