"""A figure of each training row, and the share of rows that it chooses.

    Dataset -> tokens -> ScoreJob... (here or on Ray) -> losses in the cache -> RowScores -> Kept
            -> words -> clusters in the cache ---------------------------------^

Losses are kept by what decides them: the samples, the base and how it is held; clusters by the rows and their number.
So another share, or another figure made of the same losses, costs nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from didact import files
from didact.cache.entry import CacheEntry
from didact.datasets.dataset import Dataset
from didact.datasets.quality import Kept
from didact.env import cache_dir
from didact.errors import DataError
from didact.logs import get_logger
from didact.preparation.clusters import Clusters, row_clusters, turns
from didact.spec import ChoiceSpec, FinetuneSpec
from didact.tokens import TokenTable, ViewAddress

_log = get_logger(__name__)
_VERSION = 1
"""Raised when the same samples and base give other losses than before."""
_PART = 1024
NOT_CHOSEN = "not_chosen:"
"""Begins the reason for which rows are left out, before the name of the figure."""


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """Some samples of a source whose losses are wanted, as a value that can be sent to another node."""

    entry: CacheEntry
    """Where the losses go."""
    key: str
    table: ViewAddress
    source: str
    start: int
    stop: int
    before: int | None
    """None for losses of answers behind their prompts; else the token that stands before each answer in its place."""


Scorer = Callable[[Sequence[ScoreJob], FinetuneSpec], Iterator[int]]
"""Does jobs somewhere, in any order; gives the number of samples of each that is done."""


@dataclass(frozen=True, slots=True)
class RowScores:
    """The figures of a source's training rows."""

    choice: ChoiceSpec
    values: np.ndarray
    """float64 [training rows]; NaN for rows that give no sample."""
    keep: np.ndarray
    """bool [training rows]: those that stay. Rows without a figure do: they are refused later on, and counted there."""
    clusters: Clusters | None = None
    """Of all rows, where the choice looks at them."""

    @classmethod
    def of(cls, choice: ChoiceSpec, values: np.ndarray, clusters: Clusters | None = None) -> "RowScores":
        """Choose among rows with these figures; of equal ones the earlier row goes first.

        Args:
            choice: what is chosen by the figures.
            values: float64 [training rows]; NaN for rows without one.
            clusters: where the choice looks at them, of all rows.
        """
        keep, known = np.isnan(values), np.flatnonzero(~np.isnan(values))
        allowed = known if choice.below is None else known[values[known] < choice.below]
        wanted = min(len(allowed), max(1, round(choice.share * len(known))))
        ranked = allowed[np.argsort(values[allowed] if choice.keep != "highest" else -values[allowed], kind="stable")]
        if choice.keep == "middle":
            from_middle = np.abs(2 * np.arange(len(ranked)) - (len(ranked) - 1))
            ranked = ranked[np.argsort(from_middle, kind="stable")]
        if clusters is not None and choice.by != "diversity":
            ranked = ranked[np.argsort(turns(clusters.of_row[ranked]), kind="stable")]
        keep[ranked[:wanted]] = True
        return cls(choice, values, keep, clusters)

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest figure of the rows that stay; NaN without any."""
        kept = self.values[self.keep & ~np.isnan(self.values)]
        return (float(kept.min()), float(kept.max())) if len(kept) else (float("nan"), float("nan"))


def row_scores(
    dataset: Dataset, table: TokenTable, choice: ChoiceSpec, spec: FinetuneSpec, before: int, score: Scorer
) -> RowScores:
    """The figures of a source's training rows, computed as far as the cache does not hold the losses they are made of.

    Args:
        dataset: the source.
        table: the samples of its training rows.
        choice: the figure, and what is chosen by it.
        spec: the recipe.
        before: id of the token that stands before an answer without its prompt.
        score: computes losses.

    Raises:
        DataError: `choice.below` leaves no row.
        ModelError: the base's weights are damaged.
    """
    rows = np.concatenate([keys.rows for keys in dataset.train.key_blocks()])
    order = np.argsort(rows, kind="stable")
    owners = order[np.searchsorted(rows[order], table.rows)]

    def summed(figures: np.ndarray) -> np.ndarray:
        return np.bincount(owners, weights=figures, minlength=len(rows))

    known = summed(np.ones(len(table))) > 0
    clusters = _clusters(dataset, choice)
    if choice.by == "random":
        values = np.array([_drawn(spec.data.seed, int(row)) for row in rows])
    elif choice.by == "tokens":
        values = summed(table.lengths.astype(np.float64))
    elif choice.by == "answer_tokens":
        values = summed(table.supervised.astype(np.float64))
    elif clusters is not None and choice.by == "diversity":
        values = _diversity(clusters, known)
    else:
        asked = (None, before) if choice.by == "ifd" else (None,)
        with np.errstate(invalid="ignore", divide="ignore"):
            given, *alone = (summed(losses) / summed(tokens) for losses, tokens in _losses(table, spec, asked, score))
            values = given / alone[0] if alone else given
    found = RowScores.of(choice, np.where(known, values, np.nan), clusters)
    if not np.any(found.keep & ~np.isnan(found.values)):
        lowest = f"the lowest {choice.by} is {np.nanmin(found.values):.4g}"
        raise DataError(f"source {dataset.name!r}: choose.below {choice.below} leaves no row; {lowest}")
    return found


def chosen(scores: RowScores) -> Kept:
    """What a choice leaves of a source."""
    left_out = len(scores.keep) - int(np.count_nonzero(scores.keep))
    return Kept(scores.keep, {f"{NOT_CHOSEN}{scores.choice.by}": left_out} if left_out else {})


def all_stay(dataset: Dataset) -> Kept:
    """Of a source without a choice."""
    return Kept(np.ones(len(dataset.train), dtype=bool), {})


def _clusters(dataset: Dataset, choice: ChoiceSpec) -> Clusters | None:
    if not choice.in_clusters:
        return None
    return row_clusters(dataset, choice.clusters if isinstance(choice.clusters, int) else None)


def _diversity(clusters: Clusters, known: np.ndarray) -> np.ndarray:
    """float64 [training rows]: 1 for the row nearest to its cluster's centre, 1/2 for the next; rows that give no
    sample take no turn."""
    ranked = np.flatnonzero(known)
    ranked = ranked[np.argsort(clusters.distances[ranked], kind="stable")]
    values = np.full(len(known), np.nan)
    values[ranked] = 1 / (1 + turns(clusters.of_row[ranked]))
    return values


def _losses(table: TokenTable, spec: FinetuneSpec, asked: Sequence[int | None], score: Scorer) -> list[np.ndarray]:
    """For each `ScoreJob.before`, float64 [2, samples]: a sample's losses summed in nats, and over how many tokens.

    What is missing of all of them is asked at once, so that the base is loaded once.
    """
    entries = {before: _entry(table, spec, before) for before in asked}
    starts = range(0, len(table), _PART)
    keys = [f"{number:05d}" for number in range(len(starts))]
    with ExitStack() as locks:
        open_ = {before: entry for before, entry in entries.items() if not entry.is_complete(keys)}
        jobs = []
        for before, entry in open_.items():
            locks.enter_context(entry.lock())
            missing = set(entry.missing(keys))
            jobs += [
                ScoreJob(entry, key, table.address, table.name, start, min(start + _PART, len(table)), before)
                for key, start in zip(keys, starts, strict=True)
                if key in missing
            ]
        _score_all(jobs, table.name, spec, score)
        for entry in open_.values():
            entry.finish(keys, {"source": table.name, "base": spec.model.base, "samples": len(table)})
    return [_stored(entry, keys) for entry in entries.values()]


def _entry(table: TokenTable, spec: FinetuneSpec, before: int | None) -> CacheEntry:
    """Where losses are kept.

    Raises:
        ModelError: the base's weights are damaged.
    """
    from didact.models import base_folder, check_stored, weights_digest  # loads what computes

    model = spec.model
    check_stored(model)
    decides = {
        "version": _VERSION,
        "samples": table.fingerprint,
        "base": weights_digest(base_folder(model)),
        "dtype": model.dtype,
        "quantization": model.quantization.model_dump() if model.quantization else None,
        "before": before,
    }
    return CacheEntry(cache_dir() / "scores" / files.fingerprint(decides))


def _score_all(jobs: Sequence[ScoreJob], source: str, spec: FinetuneSpec, score: Scorer) -> None:
    if not jobs:
        return
    total, done = sum(job.stop - job.start for job in jobs), 0
    _log.info("source %s: the base scores %s samples", source, f"{total:,}")
    for number in score(jobs, spec):
        done += number
        _log.info("source %s: %s of %s samples scored", source, f"{done:,}", f"{total:,}")


def _stored(entry: CacheEntry, keys: Sequence[str]) -> np.ndarray:
    with entry.hold():
        records = [entry.record(key) for key in keys]
        parts = [np.load(entry.sound_shard(record.shards[0])) for record in records if record is not None]
    return np.concatenate(parts, axis=1)


def _drawn(seed: int, row: int) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}/{row}".encode()).digest()[:8]) / 2**64
