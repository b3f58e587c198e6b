"""Plain text that is no table: files that run in parallel, line for line, and texts one after the other in one file."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import cast

from didact.datasets.places.archives import damage_of, open_bytes, with_exact_offsets
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.readers.json_files import read_lines
from didact.datasets.rows.decoding import decode_text
from didact.datasets.rows.options import END_MARK
from didact.datasets.rows.raw_row import MAX_RECORD_BYTES, SHOWN_BYTES, BadRow, RawRow
from didact.errors import DataError

_CHUNK_BYTES = 1 << 16


def read_parallel(files: Mapping[str, Path], encoding: str | None = None, named: str | None = None) -> Iterator[RawRow]:
    """Line i of every file makes row i, an empty line an empty text. Positions are those of the first file.

    Args:
        files: name of the field -> file.
        encoding: of all of them; None for UTF-8.
        named: the first file as the user names it; None for its path.

    Raises:
        DataError: a file is damaged, or has fewer lines than another.
    """
    file = named or str(next(iter(files.values())))
    readers = [_all_lines(path, encoding) for path in files.values()]
    for number, lines in enumerate(zip_longest(*readers), start=1):
        if None in lines:
            # Which line is the missing one, nobody knows, so none can be trusted to belong to its neighbours.
            short, longer = (
                next(name for name, line in zip(files, lines, strict=True) if (line is None) is gone)
                for gone in (True, False)
            )
            raise DataError(
                f"{files[short]} ends after {number - 1:,} lines and {files[longer]} goes on; files in parallel "
                "have a line for each row"
            )
        yield _joined(file, dict(zip(files, lines, strict=True)))


def _all_lines(path: Path, encoding: str | None) -> Iterator[RawRow]:
    with damage_of(str(path)):
        yield from read_lines(path, blank=None, encoding=encoding)


def _joined(file: str, lines: Mapping[str, RawRow]) -> RawRow:
    first = next(iter(lines.values()))
    try:
        record = {name: _line_text(line) for name, line in lines.items()}
    except BadRow as fault:
        content = b"\t".join(cast(bytes, line.content) for line in lines.values())
        return RawRow(file, first.line, first.byte_offset, content, fault)
    return RawRow(file, first.line, first.byte_offset, record)


def read_separated(path: SourceFile, mark: str = END_MARK, encoding: str | None = None) -> Iterator[RawRow]:
    """Texts with an end mark after each, as records with the one field `text`."""
    with open_bytes(path, encoding) as source:
        chunks = iter(partial(source.stream.read, _CHUNK_BYTES), b"")
        yield from with_exact_offsets(_separated(path, chunks, mark.encode()), source)


def _line_text(line: RawRow) -> str:
    if line.fault is not None:
        raise line.fault
    return decode_text(cast(bytes, line.content))


def _separated(path: SourceFile, chunks: Iterator[bytes], mark: bytes) -> Iterator[RawRow]:
    left, line, offset = b"", 1, 0
    too_long = False
    for chunk in chunks:
        *texts, left = (left + chunk).split(mark)
        for text in texts:
            yield from _text_row(path, line, offset, text, too_long)
            line, offset, too_long = line + text.count(b"\n"), offset + len(text) + len(mark), False
        if len(left) > MAX_RECORD_BYTES:
            # Bytes that are let go still count for the position of what follows.
            keep = len(mark)
            line, offset, left, too_long = (
                line + left[:-keep].count(b"\n"),
                offset + len(left) - keep,
                left[-keep:],
                True,
            )
    yield from _text_row(path, line, offset, left, too_long)


def _text_row(path: SourceFile, line: int, offset: int, content: bytes, too_long: bool) -> Iterator[RawRow]:
    body = content.lstrip()
    if not body.rstrip() and not too_long:
        return
    skipped = content[: len(content) - len(body)]
    line, offset = line + skipped.count(b"\n"), offset + len(skipped)
    try:
        if too_long or len(body) > MAX_RECORD_BYTES:
            raise BadRow("too_long", f"more than {MAX_RECORD_BYTES:,} bytes without the end mark")
        yield RawRow(str(path), line, offset, {"text": decode_text(body.rstrip())})
    except BadRow as bad:
        yield RawRow(str(path), line, offset, body[:SHOWN_BYTES], bad)
