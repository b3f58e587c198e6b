"""Batches of jobs shrink, keep the order, and leave nothing out."""

from pathlib import Path

import pytest

from didact.cache.entry import CacheEntry
from didact.cluster.preparing.parts import guided
from didact.preparation import PartJob


def jobs(*sizes: int) -> list[PartJob]:
    entry = CacheEntry(Path("cache") / "conversations" / "key")
    return [PartJob(str(place), None, entry, size=size) for place, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "workers", "expected"),
    [
        ([4] * 20, 2, [5, 4, 3, 2, 2, 1, 1, 1, 1]),
        ([4] * 8, 1, [4, 2, 1, 1]),
        ([4] * 3, 4, [1, 1, 1]),
        ([40, 4, 4, 4], 2, [1, 1, 1, 1]),
        ([1 << 24] * 6, 1, [2, 2, 1, 1]),  # at most 32 MiB
        ([0, 0], 2, [1, 1]),  # sizes are not always known
        ([], 2, []),
    ],
)
def test_each_batch_is_half_a_workers_share_of_what_is_left(
    sizes: list[int], workers: int, expected: list[int]
) -> None:
    given = jobs(*sizes)
    made = guided(given, workers)
    assert [len(batch) for batch in made] == expected
    assert [job for batch in made for job in batch] == given
