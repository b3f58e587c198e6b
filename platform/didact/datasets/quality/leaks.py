"""Training rows that ask what a held-out row asks. Told by the keys of stored rows, so no text is read."""

from collections.abc import Sequence

import numpy as np

from didact.datasets.dataset import Dataset
from didact.datasets.load import LEAK
from didact.datasets.quality.types import Kept
from didact.datasets.stored.writer import KEY


def drop_leaks(datasets: Sequence[Dataset]) -> list[Kept]:
    """Drop training rows that ask what a held-out row of any of the data sets asks."""
    held_out = [keys.prompts for dataset in datasets for keys in dataset.held_out.key_blocks()]
    asked = np.unique(np.concatenate([*held_out, np.zeros(0, dtype=KEY)]))
    kept = []
    for dataset in datasets:
        keep = np.ones(len(dataset.train), dtype=bool)
        if len(asked):
            for keys in dataset.train.key_blocks():
                keep[keys.start : keys.start + len(keys.rows)] = ~np.isin(keys.prompts, asked)
        num_leaks = int(np.count_nonzero(~keep))
        kept.append(Kept(keep, {LEAK: num_leaks} if num_leaks else {}))
    return kept
