"""Plain text that is no table: files that run in parallel, line for line, and texts one after the other in one file."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import cast

from didact.datasets.places.archives import open_bytes, until_damage
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.readers.json_files import read_lines
from didact.datasets.rows.decoding import decode_text
from didact.datasets.rows.options import END_MARK
from didact.datasets.rows.raw_row import MAX_RECORD_BYTES, SHOWN_BYTES, BadRow, RawRow

_CHUNK_BYTES = 1 << 16


def read_parallel(files: Mapping[str, Path], encoding: str | None = None, named: str | None = None) -> Iterator[RawRow]:
    """Line i of every file makes row i, an empty line an empty text. Positions are those of the first file.

    Args:
        files: name of the field -> file.
        encoding: of all of them; None for UTF-8.
        named: the first file as the user names it; None for its path.
    """
    readers = [read_lines(path, blank=None, encoding=encoding) for path in files.values()]
    names = list(files)
    file = named or str(files[names[0]])
    for number, lines in enumerate(zip_longest(*readers), start=1):
        first = lines[0] or RawRow(file, number, None, b"")
        fault: BadRow | None = None
        record: dict[str, str] = {}
        for name, line in zip(names, lines, strict=True):
            try:
                record[name] = _line_text(name, line)
            except BadRow as bad:
                fault = fault or bad
        if fault is None:
            yield RawRow(file, first.line, first.byte_offset, record)
        else:
            content = b"\t".join(cast(bytes, line.content) for line in lines if line is not None)
            yield RawRow(file, first.line, first.byte_offset, content, fault)


def read_separated(path: SourceFile, mark: str = END_MARK, encoding: str | None = None) -> Iterator[RawRow]:
    """Texts with an end mark after each, as records with the one field `text`."""
    with open_bytes(path, encoding) as source:
        chunks = iter(partial(source.stream.read, _CHUNK_BYTES), b"")
        yield from until_damage(_separated(path, chunks, mark.encode()), source, path)


def _line_text(name: str, line: RawRow | None) -> str:
    if line is None:
        raise BadRow("uneven_files", f"the file of {name!r} has fewer lines than another")
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
