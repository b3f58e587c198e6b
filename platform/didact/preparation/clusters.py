"""Rows that speak of the same things, told by their words: no model is asked.

    training rows -> TF-IDF of their words -> k-means in mini-batches -> Clusters, kept in the cache

Sculley 2010, "Web-scale k-means clustering"; both are scikit-learn's. Words and centres are learned from at most 20,000
rows, the others are put where they belong, so memory does not grow with the source. The same rows give the same
clusters, whatever the number of threads.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from didact import files
from didact.cache.entry import CacheEntry, PartRecord, new_file, shard_of
from didact.datasets.dataset import Dataset
from didact.datasets.quality.texts import is_unspaced, said, words
from didact.env import cache_dir
from didact.logs import get_logger

_log = get_logger(__name__)
_VERSION = 1
"""Raised when the same rows give other clusters than before."""
_WHOLE = "00000"
_LEARNED_FROM = 20_000
_MOST_AUTO = 1_000
_BATCH = 1_024
_PASSES = 20
_STARTS = 3
_WORDS = 5
_DECIMALS = 6
"""Of distances: rounding of one processor or another is not to put one row before another."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """To which cluster each training row of a source belongs."""

    of_row: np.ndarray
    """int64 [training rows]."""
    distances: np.ndarray
    """float64 [training rows]: from the centre of its cluster, 0 to 2."""
    words: tuple[tuple[str, ...], ...]
    """Of each cluster the words that weigh more in its centre than in all rows, the most telling first."""


def row_clusters(dataset: Dataset, number: int | None) -> Clusters:
    """The clusters of a source's training rows, computed unless the cache holds them.

    Args:
        dataset: the source.
        number: how many; None for the square root of half the rows, at most 1,000. There are never more than rows.
    """
    rows = len(dataset.train)
    wanted = min(number or min(math.ceil(math.sqrt(rows / 2)), _MOST_AUTO), rows, _LEARNED_FROM)
    entry = CacheEntry(cache_dir() / "scores" / files.fingerprint([_VERSION, "clusters", dataset.fingerprint, wanted]))

    def make(_: Sequence[str]) -> None:
        _log.info("source %s: %s rows are put into %s clusters", dataset.name, f"{rows:,}", f"{wanted:,}")
        found = _find(dataset, wanted)
        path = entry.folder / f"{_WHOLE}.clusters.npy"
        with new_file(path) as beside, beside.open("wb") as stream:
            np.save(stream, np.stack([found.of_row.astype(np.float64), found.distances]))
        entry.add(PartRecord(_WHOLE, (shard_of(path, rows),), {"words": [list(each) for each in found.words]}))

    entry.fill([_WHOLE], {"source": dataset.name, "clusters": wanted}, make)
    with entry.hold():
        record = entry.record(_WHOLE)
        assert record is not None, "the entry was filled"
        of_row, distances = np.load(entry.sound_shard(record.shards[0]))
    return Clusters(of_row.astype(np.int64), distances, tuple(tuple(each) for each in record.counts["words"]))


def turns(labels: np.ndarray) -> np.ndarray:
    """int64 [rows]: how many earlier rows have the same label, so that labels take turns when sorted by it."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    counted = np.arange(len(labels)) - np.repeat(starts, np.diff(starts, append=len(labels)))
    found = np.empty(len(labels), np.int64)
    found[order] = counted
    return found


def _find(dataset: Dataset, number: int) -> Clusters:
    from sklearn.cluster import MiniBatchKMeans  # loads SciPy and takes a second
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = len(dataset.train)
    learned = np.sort(np.random.Generator(np.random.PCG64(0)).permutation(rows)[:_LEARNED_FROM])
    if not any(_terms(dataset.train[int(row)].messages) for row in learned):
        return Clusters(np.zeros(rows, np.int64), np.zeros(rows), ((),))
    # What one row in 2,000 does not say tells no cluster, and most words of a large source are of that kind.
    vectorizer = TfidfVectorizer(analyzer=list, sublinear_tf=True, min_df=max(1, len(learned) // 2_000))
    vectors = vectorizer.fit_transform(_terms(dataset.train[int(row)].messages) for row in learned)
    # A fixed number of passes: when to stop would follow sums whose rounding follows the number of threads.
    kmeans = MiniBatchKMeans(
        number, random_state=0, batch_size=_BATCH, max_iter=_PASSES, n_init=_STARTS, tol=0.0, max_no_improvement=None
    ).fit(vectors)
    parts = [kmeans.transform(vectorizer.transform(terms)).round(_DECIMALS) for terms in _batches(dataset)]
    labels, distances = (np.concatenate(each) for each in ([p.argmin(1) for p in parts], [p.min(1) for p in parts]))
    middle = np.asarray(vectors.mean(axis=0)).ravel()
    return Clusters(labels.astype(np.int64), distances, _telling(kmeans.cluster_centers_, middle, vectorizer))


def _batches(dataset: Dataset) -> Iterator[list[list[str]]]:
    rows = iter(dataset.train)
    while batch := [_terms(row.messages) for row in islice(rows, _BATCH)]:
        yield batch


def _terms(messages: Sequence[Any]) -> list[str]:
    """The words of what is said; in scripts without spaces, where one is a character, also pairs of them."""
    found = words("\n".join(message.written for message in said(messages)))
    return found + [left + right for left, right in pairwise(found)] if is_unspaced(found) else found


def _telling(centres: np.ndarray, middle: np.ndarray, vectorizer: Any) -> tuple[tuple[str, ...], ...]:
    names = vectorizer.get_feature_names_out()
    beyond = ((centre - middle).round(_DECIMALS) for centre in centres)
    ranked = ((weights, np.argsort(-weights, kind="stable")[:_WORDS]) for weights in beyond)
    return tuple(tuple(str(names[term]) for term in best if weights[term] > 0) for weights, best in ranked)
