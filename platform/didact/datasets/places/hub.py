"""`hf:OWNER/NAME[:CONFIG]`: data sets of the Hugging Face hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from didact.datasets.places.remote_stream import failures
from didact.datasets.rows.raw_row import RawRow
from didact.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset as HubDataset
    from datasets import IterableDataset

PREFIX = "hf:"
_PATH = re.compile(r"hf:(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?::(?P<config>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubStream:
    """A split that is read where it is."""

    rows: "IterableDataset"
    identity: tuple[str, str, str]
    """Path, split and commit."""


def open_hub(path: str, split: str, revision: str | None) -> "HubDataset":
    """One split of a hub data set, downloaded on first use and then read from the local cache.

    Args:
        path: `hf:OWNER/NAME` or `hf:OWNER/NAME:CONFIG`.
        split: such as `train`.
        revision: branch, tag or commit; None for the newest.

    Raises:
        DataError: the path is not of that form, or the hub has no such data set, configuration, split or revision.
    """
    return cast("HubDataset", _load(path, split, revision, streaming=False))


def stream_hub(path: str, split: str, revision: str | None) -> HubStream:
    """One split of a hub data set, read where it is. The commit is settled first, so that every pass reads the same.

    Args:
        path: `hf:OWNER/NAME` or `hf:OWNER/NAME:CONFIG`.
        split: such as `train`.
        revision: branch, tag or commit; None for the newest. Only a whole commit needs no question to the hub.

    Raises:
        DataError: as `open_hub`, or the hub cannot be asked which commit it is.
    """
    commit = commit_of(path, revision)
    return HubStream(_load(path, split, commit, streaming=True), (path, split, commit))


def hub_columns(dataset: "HubDataset | HubStream") -> list[str]:
    """Names of the fields; of a stream that does not tell them, those of its first record."""
    if not isinstance(dataset, HubStream):
        return list(dataset.column_names)
    return list(dataset.rows.column_names or next(iter(dataset.rows), {}))


def hub_rows(path: str, split: str, revision: str | None, start: int, stop: int) -> Iterator[RawRow]:
    """Records `start` to `stop - 1` of a hub data set as raw rows."""
    dataset = open_hub(path, split, revision)
    for index, record in enumerate(dataset.select(range(start, stop)), start=start):
        yield RawRow(path, index + 1, None, record)


def hub_digests(dataset: "HubDataset", num_rows: int) -> tuple[str, list[str]]:
    """sha256 of all records, as a branch name may point elsewhere tomorrow; and of every `num_rows` of them."""
    whole, pieces = hashlib.sha256(), [hashlib.sha256()]
    for index, record in enumerate(dataset):
        if index and index % num_rows == 0:
            pieces.append(hashlib.sha256())
        line = _as_bytes(record)
        whole.update(line)
        pieces[-1].update(line)
    return whole.hexdigest(), [piece.hexdigest() for piece in pieces]


def as_before(read: Callable[[], Iterator[RawRow]], digest: str) -> Iterator[RawRow]:
    """The records that are read, which must be those that `hub_digests` saw when the data set was opened.

    Raises:
        DataError: they are others: the branch points elsewhere by now.
    """
    found, place = hashlib.sha256(), ""
    for raw in read():
        found.update(_as_bytes(raw.content))
        place = raw.file
        yield raw
    if found.hexdigest() != digest:
        raise DataError(
            f"{place} has changed while it was being read; what was read of it is thrown away. Give a commit as "
            "revision, or start again to use what it holds now"
        )


def _as_bytes(record: Any) -> bytes:
    return json.dumps(record, sort_keys=True, default=str).encode("ascii") + b"\n"


def streamed_rows(path: str, split: str, revision: str | None) -> Iterator[RawRow]:
    """The records of a hub data set as raw rows, read where it is.

    Raises:
        DataError: the stream broke off.
    """
    index = 0
    try:
        for index, record in enumerate(stream_hub(path, split, revision).rows, start=1):
            yield RawRow(path, index, None, record)
    except failures() as error:
        raise DataError(f"{path} cannot be read beyond row {index:,}: {type(error).__name__}: {error}") from error


def commit_of(path: str, revision: str | None) -> str:
    """The commit that a revision of a hub data set points to now.

    Args:
        path: `hf:OWNER/NAME`.
        revision: branch, tag or commit; None for the newest. Of a whole commit the hub is not asked.

    Raises:
        DataError: the hub cannot be asked, or has no such data set or revision.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi

    name, _ = _parts(path)
    unanswered: tuple[type[Exception], ...] = (ValueError, *failures())
    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except unanswered as error:
        raise DataError(
            f"{path}: the hub cannot be asked which commit {revision or 'the newest revision'} is: {error}; give the "
            "whole commit as revision, or set stream: false to read a copy that is already here"
        ) from error


def _load(path: str, split: str, revision: str | None, *, streaming: bool) -> Any:
    import datasets  # takes seconds, and only recipes with hub data need it

    name, config = _parts(path)
    try:
        return datasets.load_dataset(name, name=config, split=split, revision=revision, streaming=streaming)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise DataError(
            f"{path} (split {split!r}, revision {revision!r}) cannot be loaded: {error}{cause}; "
            "check the source's path, split and revision in data.sources"
        ) from error


def _parts(path: str) -> tuple[str, str | None]:
    match = _PATH.fullmatch(path)
    if match is None:
        raise DataError(f"path {path!r} is not of the form hf:OWNER/NAME or hf:OWNER/NAME:CONFIG")
    return match["name"], match["config"]
