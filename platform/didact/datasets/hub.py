"""`hf:OWNER/NAME[:CONFIG]`: data sets of the Hugging Face hub."""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from didact.datasets.rows import RawRow
from didact.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset as HubDataset

PREFIX = "hf:"
_PATH = re.compile(r"hf:(?P<name>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?::(?P<config>.+))?")


def open_hub(path: str, split: str, revision: str | None) -> "HubDataset":
    """One split of a hub data set, downloaded on first use and then read from the local cache.

    Args:
        path: `hf:OWNER/NAME` or `hf:OWNER/NAME:CONFIG`.
        split: such as `train`.
        revision: branch, tag or commit; None for the newest.

    Raises:
        DataError: the path is not of that form, or the hub has no such data set, configuration, split or revision.
    """
    import datasets  # takes seconds, and only recipes with hub data need it

    match = _PATH.fullmatch(path)
    if match is None:
        raise DataError(f"path {path!r} is not of the form hf:OWNER/NAME or hf:OWNER/NAME:CONFIG")
    try:
        return datasets.load_dataset(match["name"], name=match["config"], split=split, revision=revision)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise DataError(
            f"{path} (split {split!r}, revision {revision!r}) cannot be loaded: {error}{cause}; "
            "check the source's path, split and revision in data.sources"
        ) from error


def hub_rows(path: str, split: str, revision: str | None, start: int, stop: int) -> Iterator[RawRow]:
    """Records `start` to `stop - 1` of a hub data set as raw rows."""
    dataset = open_hub(path, split, revision)
    for index, record in enumerate(dataset.select(range(start, stop)), start=start):
        yield RawRow(path, index + 1, None, record)


def hub_digest(dataset: "HubDataset") -> str:
    """sha256 over the records: a branch name may point elsewhere tomorrow, the records tell."""
    digest = hashlib.sha256()
    for record in dataset:
        digest.update(json.dumps(record, sort_keys=True, default=str).encode("ascii") + b"\n")
    return digest.hexdigest()
