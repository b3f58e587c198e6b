"""A row on its way in: where it stands, what it holds, and why it may be refused."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal[
    "broken_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "wrong_columns",
    "empty_output",
    "empty_prompt",
    "unknown_role",
    "wrong_turns",
    "not_utf8",
    "nul",
    "lone_surrogate",
    "duplicate_key",
    "not_a_number",
    "too_long",
    "broken_csv",
    "missing_table",
    "unknown_label",
    "no_preference",
    "unusable_field",
    "unwanted",
]
LEFT_OUT: frozenset[Reason] = frozenset(("unwanted",))
"""Rows that say themselves that they are not to be learned: counted and kept in the quarantine, but not bad."""

MAX_RECORD_BYTES = 10_000_000
"""Longest record that is accepted; longer ones are text that lost its line ends, not instructions."""
SHOWN_BYTES = 8_192
"""What is kept of a record that is refused for its length."""
BOM = b"\xef\xbb\xbf"
"""What some programs write before the first line of UTF-8 text; no part of a row."""


class BadRow(Exception):
    """One row cannot be used. Never leaves this package: it becomes a line of the quarantine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Damage(Exception):
    """A file does not end as its format ends, or breaks somewhere. Never leaves this package: it becomes a `DataError`
    that names the file."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it stands in its source."""

    file: str
    """The file, or the path of a source that is not a file."""
    line: int
    """Line on which the row begins, from 1; for sources without lines the row's number, from 1."""
    byte_offset: int | None
    """First byte of the row in its file (in its content, when that is compressed); None where a row has no bytes of
    its own: sources that are not files, Parquet and Arrow, and files in another encoding than UTF-8."""
    content: bytes | dict[str, Any]
    """Bytes of a JSON object or of a line of columns without names (only the beginning when `fault` is set), or a
    record that the reader made: a row with named columns, a member of an object, a question joined to its table."""
    fault: BadRow | None = None
    """Why the reader itself could not take the row out of its file."""
    element: int | None = None
    """Its number, from 1, in an array or object that holds rows: such may be all on one line."""

    @property
    def place(self) -> str:
        """`file:line`, and the number of the element where it is one."""
        return f"{self.file}:{self.line}{of_element(self.element)}"


def of_element(element: int | None) -> str:
    """What is said of an element behind its line; nothing of rows that are none."""
    return f" (element {element:,})" if element is not None else ""


def too_long(num_bytes: int) -> BadRow:
    """A row of so many bytes is none."""
    return BadRow(
        "too_long",
        f"{num_bytes:,} bytes; a row has at most {MAX_RECORD_BYTES:,}. Longer ones are mostly files whose line ends "
        "are lost, or one object around all rows; a text that is so long must be cut into several rows",
    )


def twins_among(names: Iterable[object]) -> str | None:
    """What is wrong with columns of one name, of which a row could keep only the last; None where there are none.

    Columns without a name are no fields.
    """
    known = [str(name) for name in names]
    twice = sorted({name for name in known if name and known.count(name) > 1})
    return f"the columns {', '.join(known[:20])} name {', '.join(twice)} more than once; rename them" if twice else None
