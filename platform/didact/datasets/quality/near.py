"""Rows that differ in a few words: MinHash signatures, and the rows whose signatures meet in a band.

Broder 1997, "On the resemblance and containment of documents"; banding as in Leskovec, Rajaraman and Ullman, "Mining of
Massive Datasets", chapter 3. Signatures are datasketch's. Its `MinHashLSH` keeps some 7 KB a row in dictionaries and
sets; sorting the bands of all signatures finds the same pairs with half a KB a row.
"""

import zlib
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

NUM_PERMUTATIONS = 128
SEED = 1
_BATCH_ROWS = 1024
_RECALL = 0.98
# More than four standard deviations of an estimate from 128 permutations: whoever lies further below is no twin.
_ESTIMATE_MARGIN = 0.15
_EMPTY = np.uint32(0xFFFFFFFF)


def bands(threshold: float) -> tuple[int, int]:
    """Number of bands and signature values in each.

    The longest band, so the fewest pairs to verify, by which two rows of exactly `threshold` similarity meet with a
    probability of at least 0.98.
    """
    for length in range(NUM_PERMUTATIONS, 1, -1):
        count = NUM_PERMUTATIONS // length
        if 1 - (1 - threshold**length) ** count >= _RECALL:
            return count, length
    return NUM_PERMUTATIONS, 1


def signatures(shingle_sets: Iterable[frozenset[str]]) -> np.ndarray:
    """MinHash signatures, the same on any machine.

    Returns:
        uint32 [sets, 128]; a set without shingles has the largest value everywhere.
    """
    blocks = list(_blocks(iter(shingle_sets)))
    return np.concatenate(blocks) if blocks else np.empty((0, NUM_PERMUTATIONS), np.uint32)


def _blocks(shingle_sets: Iterator[frozenset[str]]) -> Iterator[np.ndarray]:
    from datasketch import MinHash  # loads SciPy, which only near duplicates need

    while batch := [[shingle.encode() for shingle in each] for each in islice(shingle_sets, _BATCH_ROWS)]:
        sketches = MinHash.bulk(batch, num_perm=NUM_PERMUTATIONS, seed=SEED, hashfunc=zlib.crc32, scheme="affine32")
        yield np.stack([sketch.hashvalues for sketch in sketches]).astype(np.uint32, copy=False)


class NearIndex:
    """Which rows may be near duplicates of which."""

    def __init__(self, signatures: np.ndarray, threshold: float) -> None:
        """Sort the bands of all signatures.

        Args:
            signatures: uint32 [rows, 128].
            threshold: Jaccard similarity of twins, above 0 to 1.
        """
        self._signatures = signatures
        self._least = threshold - _ESTIMATE_MARGIN
        rows, buckets = _shared_buckets(signatures, *bands(threshold))
        # Two orders of the same pairs: buckets of a row, rows of a bucket.
        self._buckets = buckets[np.argsort(rows, kind="stable")]
        self._bucket_starts = _starts(rows, len(signatures))
        by_bucket = np.lexsort((rows, buckets))
        self._rows = rows[by_bucket]
        self._row_starts = _starts(buckets, int(buckets.max()) + 1 if len(buckets) else 0)

    def meeting(self, row: int) -> np.ndarray:
        """int64: the other rows that share a band with `row`, in order."""
        mine = self._buckets[self._bucket_starts[row] : self._bucket_starts[row + 1]]
        if not len(mine):
            return np.empty(0, np.int64)
        met = np.unique(np.concatenate([self._rows[self._row_starts[b] : self._row_starts[b + 1]] for b in mine]))
        return met[met != row]

    def candidates(self, row: int) -> np.ndarray:
        """int64: the rows of `meeting` whose estimated similarity comes near the threshold, the likeliest first."""
        met = self.meeting(row)
        estimates = (self._signatures[met] == self._signatures[row]).mean(axis=1)
        likely = np.flatnonzero(estimates >= self._least)
        return met[likely[np.argsort(-estimates[likely], kind="stable")]]


def _shared_buckets(signatures: np.ndarray, count: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (row, bucket) for every bucket of two or more rows. A bucket is a band and what stands in it."""
    real = np.flatnonzero((signatures != _EMPTY).any(axis=1))
    rows, buckets, used = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for band in range(count):
        part = np.ascontiguousarray(signatures[real, band * length : (band + 1) * length])
        _, labels, sizes = np.unique(part.view(f"V{4 * length}").ravel(), return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[labels] > 1)
        rows.append(real[shared])
        buckets.append(labels[shared].astype(np.int64) + used)
        used += len(sizes)
    return np.concatenate(rows), np.concatenate(buckets)


def _starts(keys: np.ndarray, count: int) -> np.ndarray:
    """int64 [count + 1]: where the entries of each key begin once they are sorted by key."""
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)
