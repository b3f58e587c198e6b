"""Tables of rows, delimited text, Parquet and Arrow -> raw rows, one record each."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from didact.datasets.places.archives import IN_MEMORY_BYTES, open_bytes, with_exact_offsets
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.decoding import decode_text
from didact.datasets.rows.raw_row import (
    BOM,
    MAX_RECORD_BYTES,
    SHOWN_BYTES,
    BadRow,
    Damage,
    RawRow,
    too_long,
    twins_among,
)
from didact.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLANK = b" \r\n"
"""A line of these bytes only is not a row. Tabs are columns."""
_MAX_LINES = 1_000
_BATCH_ROWS = 1_000
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_OPENS = {mark: re.compile(rb'(?:^|[%c])"' % mark) for mark in b",\t;|"}
_CLOSES = re.compile(rb'(?:[^"]++|"")*+"')


@dataclass(frozen=True, slots=True)
class Delimited:
    """How delimited text is written."""

    mark: str = ","
    """Between two columns."""
    quotes: bool = True
    """Whether a column may stand in double quotes, and then hold marks, line breaks and doubled quotes."""
    columns: tuple[str, ...] = ()
    """Names of the columns; empty where the first row holds them."""


def read_delimited(path: SourceFile, how: Delimited, encoding: str | None = None) -> Iterator[RawRow]:
    """Rows of delimited text as records of text. A byte order mark and blank lines are passed over.

    A quote that is never closed costs the line on which it opens, not the rest of the file.

    Raises:
        DataError: there is no such encoding.
        Damage: the last row is cut in its middle.
    """
    # The standard reader's limit is for the whole process; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_BYTES))
    with open_bytes(path, encoding) as source:
        pieces = _records(str(path), source.stream, how)
        yield from with_exact_offsets(_named(pieces, how), source)


def first_row(content: bytes, how: Delimited) -> list[str]:
    """The columns of the first row of some text; empty where it cannot be read."""
    try:
        first = next(_records("", io.BytesIO(content), how), None)
        return [] if first is None else _columns(first[0], how)
    except (BadRow, Damage):
        return []


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Row groups of a Parquet file that follow each other."""

    start: int
    stop: int
    first_row: int
    """Rows in the groups before them."""


def parquet_groups(path: Path, num_bytes: int) -> list[RowGroups]:
    """A Parquet file's row groups, so many together that they hold about `num_bytes`; none for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return []
    groups: list[RowGroups] = []
    start = rows = rows_before = size = 0
    for index in range(found.num_row_groups):
        group = found.row_group(index)
        size, rows = size + group.total_byte_size, rows + group.num_rows
        if size >= num_bytes or index + 1 == found.num_row_groups:
            groups.append(RowGroups(start, index + 1, rows_before))
            start, rows_before, size = index + 1, rows, 0
    return groups


def read_parquet(path: SourceFile, groups: RowGroups | None = None) -> Iterator[RawRow]:
    """Rows of a Parquet file, or of some row groups, a batch at a time. `line` is the row's number.

    Raises:
        Damage: the file cannot be read to its end.
    """
    import pyarrow.parquet as pq

    num_read = groups.first_row if groups else 0
    with (
        _damages(),
        path.open("rb") as stream,
        pq.ParquetFile(stream, page_checksum_verification=True) as file,
    ):
        wanted = range(groups.start, groups.stop) if groups else range(file.num_row_groups)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=list(wanted)):
            yield from _batch_rows(path, batch, num_read)
            num_read += batch.num_rows


def read_arrow(path: SourceFile) -> Iterator[RawRow]:
    """Rows of an Arrow file (Feather version 2) or stream, a batch at a time. `line` is the row's number.

    Raises:
        Damage: the file cannot be read to its end, or something follows it.
    """
    num_read = 0
    with _damages(), _arrow_source(path) as file:
        for batch in _arrow_batches(file):
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield from _batch_rows(path, batch.slice(start, _BATCH_ROWS), num_read + start)
            num_read += batch.num_rows


@contextmanager
def _damages() -> Iterator[None]:
    """What the library raises for bytes that are not what they should be, as `Damage`."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Damage(str(error)) from error


def _arrow_source(path: SourceFile) -> "pa.NativeFile":
    import pyarrow as pa

    if not isinstance(path, Path):
        return pa.PythonFile(path.open(), "r")
    # A map of a file that somebody cuts meanwhile would end this process.
    small = path.stat().st_size <= IN_MEMORY_BYTES
    return pa.BufferReader(path.read_bytes()) if small else pa.memory_map(str(path))


def _arrow_batches(file: "pa.NativeFile") -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    if file.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(file)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
        return
    file.seek(0)
    yield from pa.ipc.open_stream(file)
    # The library takes the end of the file for the end of the stream. Only this mark says that all of it was written.
    end = file.tell()
    file.seek(0)
    # Before version 0.15 of the format a message had no mark of four bytes before its length.
    mark = _STREAM_END if file.read(4) == _STREAM_END[:4] else _STREAM_END[4:]
    file.seek(max(0, end - len(mark)))
    if file.read(len(mark)) != mark:
        raise Damage("the Arrow stream stops without its end mark")
    if file.read(1):
        raise Damage(f"something follows the end of the Arrow stream, at byte {end:,}")


def _batch_rows(path: SourceFile, batch: "pa.RecordBatch", num_before: int) -> Iterator[RawRow]:
    records: list[dict[str, Any] | BadRow]
    if twins := twins_among(batch.schema.names):
        raise DataError(f"{path}: {twins}")
    try:
        _check_structure(batch)
        records = [*batch.to_pylist()]
    except UnicodeDecodeError:
        records = [_one_record(batch.slice(index, 1)) for index in range(batch.num_rows)]
    for index, record in enumerate(records):
        line = num_before + index + 1
        if isinstance(record, BadRow):
            yield RawRow(str(path), line, None, b"", record)
        else:
            yield RawRow(str(path), line, None, record)


def _check_structure(batch: "pa.RecordBatch") -> None:
    """Refuse offsets and lengths that point out of their buffers, which the library would follow."""
    import pyarrow as pa

    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):  # bad text costs its row only, and is found there
                raise


def _one_record(row: "pa.RecordBatch") -> dict[str, Any] | BadRow:
    try:
        record: dict[str, Any] = row.to_pylist()[0]
        return record
    except UnicodeDecodeError as error:
        return BadRow("not_utf8", str(error))


def _records(file: str, stream: BinaryIO, how: Delimited) -> Iterator[tuple[RawRow, bool]]:
    """The bytes of each row, and whether a line end follows them."""
    offset, line = 0, 1
    waiting: list[tuple[bytes, int]] = []
    while lines := _take_record(stream, waiting, how):
        content, start = b"".join(piece for piece, _ in lines), offset
        here, line, offset = line, line + len(lines), offset + sum(size for _, size in lines)
        if here == 1 and content.startswith(BOM):
            content, start = content[len(BOM) :], start + len(BOM)
        fault = None
        if len(content) > MAX_RECORD_BYTES:
            fault = too_long(len(content))
            content = content[:SHOWN_BYTES]
        if content.strip(BLANK):
            yield RawRow(file, here, start, content.rstrip(b"\r\n"), fault), lines[-1][0].endswith(b"\n")


def _take_record(stream: BinaryIO, waiting: list[tuple[bytes, int]], how: Delimited) -> list[tuple[bytes, int]]:
    """The lines of the next row with their sizes; lines that were read in vain are put back into `waiting`."""
    lines: list[tuple[bytes, int]] = []
    inside, total = False, 0
    while len(lines) < _MAX_LINES and total <= MAX_RECORD_BYTES:
        piece, size = waiting.pop(0) if waiting else _line(stream)
        if not piece:
            if inside and not lines[-1][0].endswith(b"\n"):
                raise Damage(f"it ends inside the quotes of the row that begins with {lines[0][0][:30]!r}")
            break
        lines.append((piece, size))
        total += size
        inside = how.quotes and _still_open(piece, inside, ord(how.mark))
        if not inside:
            break
    if len(lines) == 1 or (not inside and _is_record(lines, how)):
        return lines
    waiting[:0] = lines[1:]
    return lines[:1]


def _is_record(lines: list[tuple[bytes, int]], how: Delimited) -> bool:
    """Whether lines are one row in good order, and not rows that a stray quote holds together."""
    text = b"".join(piece for piece, _ in lines).decode("utf-8", errors="replace")
    try:
        return len(list(csv.reader([text.rstrip("\r\n")], delimiter=how.mark, strict=True))) == 1
    except csv.Error:
        return False


def _line(stream: BinaryIO) -> tuple[bytes, int]:
    """A line and its size; of one that is much too long only enough to see that it is."""
    piece = stream.readline(MAX_RECORD_BYTES + 1)
    size = len(piece)
    while size > MAX_RECORD_BYTES and not piece.endswith(b"\n") and (rest := stream.readline(1 << 20)):
        size += len(rest)
        piece = piece[: MAX_RECORD_BYTES + 1] + rest[-1:]
    return piece, size


def _still_open(piece: bytes, inside: bool, mark: int) -> bool:
    """Whether a quoted column is open at the end of a line."""
    position = 0
    while True:
        if inside:
            closed = _CLOSES.match(piece, position)
            if closed is None:
                return True
            position = closed.end()
        opened = _OPENS[mark].search(piece, position)
        if opened is None:
            return False
        position, inside = opened.end(), True


def _columns(raw: RawRow, how: Delimited) -> list[str]:
    assert isinstance(raw.content, bytes)
    if raw.fault is not None:
        raise raw.fault
    text = decode_text(raw.content)
    if not how.quotes:
        return text.split(how.mark)
    try:
        rows = list(csv.reader([text], delimiter=how.mark, strict=True))
    except csv.Error as error:
        raise BadRow("broken_csv", str(error)) from None
    return rows[0]


def _named(rows: Iterator[tuple[RawRow, bool]], how: Delimited) -> Iterator[RawRow]:
    names: Sequence[str] = how.columns
    if not names:
        head = next(rows, None)
        if head is None:
            return
        try:
            names = [name.strip() for name in _columns(head[0], how)]
            if twins := twins_among(names):
                raise BadRow("duplicate_key", twins)
        except BadRow as bad:
            # Without names no row can be told apart from another, so each is refused for the header's fault.
            for raw, _ in chain([head], rows):
                yield RawRow(raw.file, raw.line, raw.byte_offset, raw.content, bad)
            return
    for raw, is_ended in rows:
        try:
            columns = _columns(raw, how)
            if len(columns) < len(names) and not is_ended:
                raise Damage(
                    f"it ends in the middle of line {raw.line:,}, after {len(columns)} of {len(names)} columns"
                )
            if len(columns) != len(names):
                raise BadRow("wrong_columns", f"found {len(columns)} columns, expected {', '.join(names)}")
        except BadRow as bad:
            yield RawRow(raw.file, raw.line, raw.byte_offset, raw.content, bad)
        else:
            yield RawRow(raw.file, raw.line, raw.byte_offset, dict(zip(names, columns, strict=True)))
