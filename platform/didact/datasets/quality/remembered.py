"""What a search through texts has found, kept in the cache: whoever asks the same of the same rows does not search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from didact import files
from didact.cache.entry import CacheEntry, PartRecord, new_file, shard_of
from didact.datasets.dataset import Dataset
from didact.datasets.quality.types import Finding, Kept, Match, Twin
from didact.env import cache_dir

_VERSION = 2
"""Raised when the same question about the same rows has another answer than before."""

_WHOLE = "00000"


def remembered(
    datasets: Sequence[Dataset], question: Mapping[str, Any], search: Callable[[], Sequence[Kept]]
) -> list[Kept]:
    """The answer of a search, made now unless the cache holds it.

    Args:
        datasets: what is searched; their fingerprints say which rows these are.
        question: plain data that decides the answer beside the rows.
        search: gives one answer for each data set.
    """
    about = [[dataset.name, dataset.fingerprint] for dataset in datasets]
    entry = CacheEntry(cache_dir() / "filters" / files.fingerprint([_VERSION, about, question]))
    keys = [f"{number:05d}" for number in range(len(datasets))]

    def make(missing: list[str]) -> None:
        found = dict(zip(keys, search(), strict=True))
        for key in missing:
            _write(entry, key, found[key])

    entry.fill(keys, {"source": ", ".join(dataset.name for dataset in datasets), **question}, make)
    with entry.hold():
        return [_read(entry, key) for key in keys]


def remembered_facts(
    dataset: Dataset, question: Mapping[str, Any], search: Callable[[], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """As `remembered`, for one data set and an answer that is plain data.

    Args:
        dataset: what is searched.
        question: plain data that decides the answer beside the rows.
        search: gives the answer.
    """
    about = [[dataset.name, dataset.fingerprint]]
    entry = CacheEntry(cache_dir() / "filters" / files.fingerprint([_VERSION, about, question]))

    def make(missing: list[str]) -> None:
        for key in missing:
            entry.add(PartRecord(key, (), {"found": search()}))

    entry.fill([_WHOLE], {"source": dataset.name, **question}, make)
    with entry.hold():
        record = entry.record(_WHOLE)
        assert record is not None, "the entry was filled"
        return list(record.counts["found"])


def _write(entry: CacheEntry, key: str, kept: Kept) -> None:
    path = entry.folder / f"{key}.keep.npy"
    with new_file(path) as beside, beside.open("wb") as stream:
        np.save(stream, kept.keep)
    counts = {
        "accepted": int(np.count_nonzero(kept.keep)),
        "dropped": dict(kept.dropped),
        "found": dict(kept.found),
        "examples": [asdict(finding) for finding in kept.examples],
    }
    entry.add(PartRecord(key, (shard_of(path, len(kept.keep)),), counts))


def _read(entry: CacheEntry, key: str) -> Kept:
    record = entry.record(key)
    assert record is not None, "the entry was filled"
    counts = record.counts
    keep = np.load(entry.sound_shard(record.shards[0]))
    return Kept(keep, counts["dropped"], counts["found"], tuple(_finding(value) for value in counts["examples"]))


def _finding(value: Mapping[str, Any]) -> Finding:
    cause = value["cause"]
    kind = Match if cause.keys() == {field.name for field in fields(Match)} else Twin
    return Finding(value["row"], value["reason"], kind(**cause))
