"""Rows that gave no sample are rejects like those that could not be read: counted, written down, and not too many."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from didact.cache.entry import CacheEntry
from didact.datasets.dataset import Dataset
from didact.datasets.rows.quarantine import Reject, first_of_all, write_quarantine
from didact.datasets.rows.raw_row import LEFT_OUT
from didact.errors import DataError
from didact.logs import get_logger
from didact.tokens.refused import refused_rows
from didact.tokens.table import TokenTable

_log = get_logger(__name__)
_ADVICE = {
    "answer_cut": "raise tokens.max_length",
    "too_long": "raise tokens.max_length or set tokens.truncation to end",
    "template_refused": "set tokens.template, such as to alpaca, or tokens.template_arguments",
    "no_tool_syntax": "set tokens.template to a template that writes tools",
}
_NOT_BAD = ("answer_cut", "too_long", "not_to_learn")
"""What follows from `tokens.max_length` or was asked for."""


def note_refused(
    dataset: Dataset,
    tokens: CacheEntry,
    tables: Sequence[TokenTable],
    max_bad_rows_share: float,
    quarantine_dir: Path | None,
) -> Dataset:
    """Write the rows that gave no sample into the quarantine and count them.

    Args:
        dataset: the rows.
        tokens: what was made of them.
        tables: the samples of those that are trained on, and of those that are held out.
        max_bad_rows_share: largest share of bad rows, of whatever kind, 0 to 1.
        quarantine_dir: folder of the quarantine; None writes nothing.

    Returns:
        The dataset with `refused` and `quarantine`.

    Raises:
        DataError: none of the rows to train on can be learned from, or too many are bad.
    """
    counts = sum((Counter(table.stats.rejected) for table in tables), Counter[str]())
    left_out = sum(table.stats.left_out for table in tables)
    if left_out:
        first = next(_rows(dataset, tokens, is_whole=False)).summary
        _log.warning(
            "%s: %d answers of rows that teach others are not learned; first: %s", dataset.name, left_out, first
        )
    quarantine, told = dataset.quarantine, "there are none"
    if counts:
        everything = chain(dataset.stored.rejects(dataset.places), _rows(dataset, tokens))
        quarantine = write_quarantine(quarantine_dir, dataset.name, everything)
        told = _told(dataset, tokens, counts, quarantine)
    if not len(tables[0]):
        raise DataError(
            f"source {dataset.name!r}: none of {len(dataset.train)} training conversations can be learned from: {told}"
        )
    _check_share(dataset, counts, max_bad_rows_share, told)
    if counts:
        _log.warning("%s: no sample could be made of some rows: %s", dataset.name, told)
    return replace(dataset, refused=dict(sorted(counts.items())), quarantine=quarantine)


def _rows(dataset: Dataset, tokens: CacheEntry, *, is_whole: bool = True) -> Iterator[Reject]:
    for row in refused_rows(tokens, (dataset.train, dataset.held_out), dataset.places):
        if row.is_whole == is_whole:
            yield row.reject


def _told(dataset: Dataset, tokens: CacheEntry, counts: Counter[str], quarantine: Path | None) -> str:
    """Counts, the first rows, where all of them are, and what may help."""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items()))
    advice = " or ".join(_ADVICE[reason] for reason in sorted(counts) if reason in _ADVICE)
    return reasons + (f" ({advice})" if advice else "") + first_of_all(_rows(dataset, tokens), quarantine)


def _check_share(dataset: Dataset, counts: Counter[str], max_bad_rows_share: float, told: str) -> None:
    num_bad = sum(count for reason, count in counts.items() if reason not in _NOT_BAD)
    num_used = len(dataset.train) + len(dataset.held_out)
    if not num_bad:
        return
    num_unread = sum(count for reason, count in dataset.stored.rejected.items() if reason not in LEFT_OUT)
    unread = num_unread / dataset.rows_read
    share = unread + (1 - unread) * num_bad / num_used
    if share > max_bad_rows_share:
        raise DataError(
            f"source {dataset.name!r}: {num_bad:,} of {num_used:,} rows cannot be learned from, and "
            f"{num_unread:,} of {dataset.rows_read:,} could not be read: {share:.2%} are bad, more than "
            f"data.max_bad_rows_share = {max_bad_rows_share:g} allows. Of some no sample could be made: {told} "
            "Repair or remove these rows, or raise data.max_bad_rows_share."
        )
