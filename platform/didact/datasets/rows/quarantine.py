"""Refused rows: written down with their place and reason, and too many of them stop the run."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from didact.datasets.rows.raw_row import BadRow, RawRow, of_element
from didact.errors import DataError
from didact.files import write_lines

SHOWN_CHARACTERS = 2_000
_DETAIL_CHARACTERS = 300
_SHOWN_ROWS = 3


@dataclass(frozen=True, slots=True)
class Reject:
    """One refused row, ready to be written; the row itself is not kept."""

    file: str
    line: int
    byte_offset: int | None
    reason: str
    detail: str
    raw: str
    number: int = 0
    """Of its file among those of its part."""
    element: int | None = None
    """Its number in the array or object that holds it."""

    @property
    def summary(self) -> str:
        """`file:line reason (detail)`, with the number of an element."""
        return f"{self.file}:{self.line}{of_element(self.element)} {self.reason} ({self.detail})"


def reject(raw: RawRow, bad: BadRow, number: int = 0) -> Reject:
    """What is remembered of a refused row: its text shortened, bytes that are not UTF-8 as `\\xNN`."""
    if isinstance(raw.content, bytes):
        text = raw.content[: 4 * SHOWN_CHARACTERS].decode("utf-8", errors="backslashreplace")
    else:
        text = json.dumps(raw.content, default=str)
    detail, text = bad.detail[:_DETAIL_CHARACTERS], text[:SHOWN_CHARACTERS]
    return Reject(raw.file, raw.line, raw.byte_offset, bad.reason, detail, text, number, raw.element)


def write_quarantine(folder: Path | None, source: str, rejects: Iterator[Reject]) -> Path | None:
    """Write `<folder>/<source>.jsonl`, one refused row a line, replacing what an earlier load left.

    Returns:
        The file, or None when there is nothing to write or nowhere to write it.
    """
    if folder is None:
        return None
    path = folder / f"{source}.jsonl"
    first = next(rejects, None)
    if first is None:
        path.unlink(missing_ok=True)
        return None
    write_lines(path, (_line(entry) for entry in chain([first], rejects)))
    return path


def check_share(
    source: str,
    num_read: int,
    num_rejected: int,
    rejects: Iterable[Reject],
    max_bad_rows_share: float,
    quarantine: Path | None,
) -> None:
    """Stop when too large a share of the rows was refused.

    Args:
        source: the source's name.
        num_read: rows read.
        num_rejected: rows refused.
        rejects: these; the first of them are shown.
        max_bad_rows_share: how many may be, 0 to 1.
        quarantine: the file with all of them, or None.

    Raises:
        DataError: counts, the first reasons with their place, the quarantine file and the field to change.
    """
    if not num_rejected or num_rejected / num_read <= max_bad_rows_share:
        return
    raise DataError(
        f"source {source!r}: {num_rejected:,} of {num_read:,} rows ({num_rejected / num_read:.2%}) cannot be used, "
        f"more than data.max_bad_rows_share = {max_bad_rows_share:g} allows{first_of_all(rejects, quarantine)} "
        "Repair or remove these rows, or raise data.max_bad_rows_share."
    )


def first_of_all(rejects: Iterable[Reject], quarantine: Path | None) -> str:
    """The end of a message about refused rows: the first of them with place and reason, and the file with all."""
    first = "; ".join(entry.summary for entry in islice(rejects, _SHOWN_ROWS))
    where = f"All of them are in {quarantine}." if quarantine else "No quarantine folder was given."
    return f". First: {first}. {where}"


def _line(entry: Reject) -> str:
    record = {
        "file": entry.file,
        "line": entry.line,
        **({} if entry.element is None else {"element": entry.element}),
        "byte_offset": entry.byte_offset,
        "reason": entry.reason,
        "detail": entry.detail,
        "raw": entry.raw,
    }
    line = json.dumps(record, ensure_ascii=False) + "\n"
    # The name of a file need not be UTF-8; in JSON its odd bytes are escapes.
    return line.encode("utf-8", errors="backslashreplace").decode("utf-8")
