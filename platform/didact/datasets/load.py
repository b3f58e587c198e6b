"""A source of the recipe -> `Dataset`: open, read row by row, choose, fingerprint."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from didact.datasets import catalog, hub
from didact.datasets.drafts import RowSettings
from didact.datasets.opening import OpenedSource, open_source
from didact.datasets.quarantine import Reject, check_share, reject, write_quarantine
from didact.datasets.records import Form, to_conversation
from didact.datasets.rows import BadRow, RawRow
from didact.datasets.selection import Selection, select
from didact.datasets.types import Conversation, Dataset
from didact.errors import DataError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import SourceSpec

FORMAT_VERSION = 2
"""Raised when the same bytes become other conversations than before, so that caches made before are not used."""

_log = get_logger(__name__)


def load_dataset(source: SourceSpec, *, seed: int, max_bad_rows_share: float, quarantine_dir: Path | None) -> Dataset:
    """Read a source and bring its rows to one form.

    Args:
        source: where the rows are, how they are written, and how many are used and held out.
        seed: `data.seed`; decides which rows are chosen and held out.
        max_bad_rows_share: largest share of refused rows, 0 to 1.
        quarantine_dir: folder for `<source name>.jsonl` with the refused rows; None writes nothing.

    Returns:
        The data set. `rows_read` counts accepted and rejected rows, before any choice; `train` and `held_out` together
        hold at most `max_rows` rows, each in the source's order.

    Raises:
        DataError: the source is missing or of an unknown form, too many rows are bad, or no row is left to train on.
    """
    _warn_unused(source)
    opened = open_source(source)
    accepted, rejects = _read(opened.rows, RowSettings(opened.options, seed))
    num_read = len(accepted) + len(rejects)
    quarantine = write_quarantine(quarantine_dir, source.name, rejects)
    check_share(source.name, num_read, rejects, max_bad_rows_share, quarantine)
    chosen = select(accepted, max_rows=source.max_rows, held_out_rows=source.held_out_rows, seed=seed)
    _check_enough(source, chosen, num_read, len(rejects))
    _log.info(
        "source %s: %d rows read, %d rejected; %d to train on, %d held out, %d dropped for a held-out row's prompt",
        *(source.name, num_read, len(rejects), len(chosen.train), len(chosen.held_out), chosen.num_leaks),
    )
    return Dataset(
        name=source.name,
        train=chosen.train,
        held_out=chosen.held_out,
        fingerprint=_fingerprint(source, seed, opened.identity),
        rows_read=num_read,
        rows_rejected=len(rejects),
        quarantine=quarantine,
    )


@dataclass(frozen=True, slots=True)
class FirstRows:
    """What the beginning of a source holds."""

    forms: tuple[str, ...]
    """Every form that was met, in order."""
    accepted: tuple[Conversation, ...]
    rejects: tuple[Reject, ...]


def first_rows(opened: OpenedSource, num_rows: int) -> FirstRows:
    """Read the beginning of a source, to look at it or to check it.

    Raises:
        DataError: a file of unknown form.
    """
    rows = list(islice(opened.rows, num_rows))
    accepted, rejects = _read(iter(rows), RowSettings(opened.options))
    return FirstRows(tuple(dict.fromkeys(form for form, _ in rows)), tuple(accepted), tuple(rejects))


def _read(rows: Iterator[tuple[Form, RawRow]], settings: RowSettings) -> tuple[list[Conversation], list[Reject]]:
    accepted: list[Conversation] = []
    rejects: list[Reject] = []
    for index, (form, raw) in enumerate(rows):
        try:
            accepted.append(to_conversation(form, raw, index, settings))
        except BadRow as bad:
            rejects.append(reject(raw, bad))
    return accepted, rejects


def _check_enough(source: SourceSpec, chosen: Selection, num_read: int, num_rejected: int) -> None:
    if not chosen.train:
        raise DataError(
            f"source {source.name!r}: no row is left to train on: {num_read:,} read, {num_rejected:,} rejected, "
            f"{len(chosen.held_out):,} held out, {chosen.num_leaks:,} with the prompt of a held-out row; "
            f"lower held_out_rows ({source.held_out_rows}), raise max_rows ({source.max_rows}) or give more data"
        )


def _warn_unused(source: SourceSpec) -> None:
    of_the_hub = source.path.startswith((hub.PREFIX, catalog.PREFIX))
    if (source.revision is not None or source.split != "train") and not of_the_hub:
        _log.warning("source %s: split and revision only have an effect for %sOWNER/NAME", source.name, hub.PREFIX)


def _fingerprint(source: SourceSpec, seed: int, identity: Any) -> str:
    return fingerprint(
        {
            "version": FORMAT_VERSION,
            "identity": identity,
            "format": source.format,
            # Where a card's files lie is not what they hold.
            "options": {name: value for name, value in source.options.items() if name != catalog.ROOT_OPTION},
            "max_rows": source.max_rows,
            "held_out_rows": source.held_out_rows,
            "seed": seed,
            "split": source.split,
            "revision": source.revision,
        }
    )
