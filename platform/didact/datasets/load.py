"""A source of the recipe -> `Dataset`: open, read row by row, choose, fingerprint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from didact.datasets import generated, hub
from didact.datasets.opening import open_source
from didact.datasets.quarantine import Reject, check_share, reject, write_quarantine
from didact.datasets.records import Form, to_conversation
from didact.datasets.rows import BadRow, RawRow
from didact.datasets.selection import Selection, select
from didact.datasets.types import Conversation, Dataset
from didact.errors import DataError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.spec import SourceSpec

FORMAT_VERSION = 1
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
    accepted, rejects = _read(opened.rows)
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


def _read(rows: Iterator[tuple[Form, RawRow]]) -> tuple[list[Conversation], list[Reject]]:
    accepted: list[Conversation] = []
    rejects: list[Reject] = []
    for index, (form, raw) in enumerate(rows):
        try:
            accepted.append(to_conversation(form, raw, index))
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
    if source.options and not source.path.startswith(generated.PREFIX):
        _log.warning("source %s: options only have an effect for %sTASK", source.name, generated.PREFIX)
    if (source.revision is not None or source.split != "train") and not source.path.startswith(hub.PREFIX):
        _log.warning("source %s: split and revision only have an effect for %sOWNER/NAME", source.name, hub.PREFIX)


def _fingerprint(source: SourceSpec, seed: int, identity: Any) -> str:
    return fingerprint(
        {
            "version": FORMAT_VERSION,
            "identity": identity,
            "format": source.format,
            "options": source.options,
            "max_rows": source.max_rows,
            "held_out_rows": source.held_out_rows,
            "seed": seed,
            "split": source.split,
            "revision": source.revision,
        }
    )
