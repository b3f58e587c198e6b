"""Files -> raw rows with their position. Knows lines and JSON arrays and objects, nothing of what a row means.

Every reader is a generator: one row is in memory at a time, and a damaged row costs that row only.
"""

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from didact.datasets.places.archives import mapped, open_bytes, until_damage
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.decoding import decode_text, parse_json
from didact.datasets.rows.raw_row import BOM, MAX_RECORD_BYTES, SHOWN_BYTES, BadRow, RawRow

BLANK = b" \t\r\n"
_SKIP_BYTES = 1 << 20
_CLOSES = {b"]": b"[", b"}": b"{"}
# Possessive, so that a missing closing quote costs one scan of the file and not one per character.
_MEMBER = re.compile(rb'"((?:[^"\\]|\\.)*+)"\s*+:\s*+', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a plain file that begin in a range of its bytes."""

    start: int
    stop: int
    before: int
    """Line feeds in the bytes before `start`."""


def read_lines(
    path: SourceFile, blank: bytes | None = BLANK, encoding: str | None = None, lines: Lines | None = None
) -> Iterator[RawRow]:
    """Rows of a file with one row a line, line end removed. A byte order mark is passed over.

    Args:
        path: the file, plain or compressed.
        blank: a line of these bytes only is not a row; None makes every line a row.
        encoding: how the text is written; None for UTF-8.
        lines: only these, of a plain file in UTF-8; None for all.

    Raises:
        DataError: there is no such encoding.
    """
    with open_bytes(path, encoding) as source:
        yield from until_damage(_lines(path, source.stream, blank, lines), source, path)


def read_array(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """Elements of a JSON array, each cut out by its brackets, so that a damaged element spoils no other.

    Where the brackets themselves no longer match, everything from the element that holds the break is one bad row.
    """
    with mapped(path, encoding) as (data, source):
        yield from until_damage(_elements(path, data, b"["), source, path)


def read_keyed(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """Members of a JSON object whose keys are the rows' names: `{"7": {...}, "8": {...}}`.

    A row is its value with the key as `id` added; a value that is a list becomes `{"id": key, "values": [...]}`.
    """
    seen: set[str] = set()
    with mapped(path, encoding) as (data, source):
        for raw in until_damage(_elements(path, data, b"{"), source, path):
            yield _named(raw, seen) if raw.fault is None else raw


def read_object(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """A file that is one JSON object over several lines: one row."""
    with mapped(path, encoding) as (data, source):
        start, stop = _trim(data, len(BOM) if data[:3] == BOM else 0, len(data))
        fault = _too_long(stop - start) if stop - start > MAX_RECORD_BYTES else None
        content = data[start : stop if fault is None else start + SHOWN_BYTES]
        row = RawRow(str(path), data[:start].count(b"\n") + 1, start, content, fault)
        yield from until_damage(iter([row]), source, path)


def members(path: Path, count: int, encoding: str | None = None) -> list[tuple[str, bytes]]:
    """The first members of a JSON object: each key, and the first bytes of its value."""
    found: list[tuple[str, bytes]] = []
    with mapped(path, encoding) as (data, _):
        for start, stop, fault in _spans(data, b"{"):
            member = _MEMBER.match(data, start, stop)
            if fault is not None or member is None or len(found) == count:
                break
            found.append((member[1].decode("utf-8", errors="replace"), bytes(data[member.end() : member.end() + 64])))
    return found


def _lines(path: SourceFile, stream: BinaryIO, blank: bytes | None, lines: Lines | None) -> Iterator[RawRow]:
    line, offset = _first_line(stream, lines) if lines is not None else (0, 0)
    while (lines is None or offset < lines.stop) and (piece := stream.readline(MAX_RECORD_BYTES + 1)):
        line, start = line + 1, offset
        offset += len(piece)
        fault = None
        if len(piece) > MAX_RECORD_BYTES and not piece.endswith(b"\n"):
            while not piece.endswith(b"\n") and (rest := stream.readline(_SKIP_BYTES)):
                offset += len(rest)
                piece = piece[:SHOWN_BYTES] + rest[-1:]
            fault = _too_long(offset - start)
        if line == 1 and piece.startswith(BOM):
            piece, start = piece[len(BOM) :], start + len(BOM)
        if blank is None or piece.strip(blank):
            yield RawRow(str(path), line, start, piece.rstrip(b"\r\n"), fault)


def _first_line(stream: BinaryIO, lines: Lines) -> tuple[int, int]:
    """Go to the first line that begins in the range; the lines before it, and its first byte."""
    if lines.start == 0:
        return 0, 0
    stream.seek(lines.start - 1)
    skipped = 0
    # The line that runs into the range belongs to the range where it began.
    while rest := stream.readline(_SKIP_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return lines.before + (skipped > 1), lines.start - 1 + skipped


def _elements(path: Path, data: mmap.mmap, opening: bytes) -> Iterator[RawRow]:
    line, counted = 1, 0
    for start, stop, fault in _spans(data, opening):
        line, counted = line + data[counted:start].count(b"\n"), start
        if fault is None and stop - start > MAX_RECORD_BYTES:
            fault = _too_long(stop - start)
        content = data[start : stop if fault is None else min(stop, start + SHOWN_BYTES)]
        yield RawRow(str(path), line, start, content, fault)


def _named(raw: RawRow, seen: set[str]) -> RawRow:
    assert isinstance(raw.content, bytes)
    try:
        member = _MEMBER.match(raw.content)
        if member is None:
            raise BadRow("broken_json", 'expected "name": value')
        key = json.loads(f'"{decode_text(member[1])}"')
        if key in seen:
            raise BadRow("duplicate_key", f"key {key!r} is given more than once")
        seen.add(key)
        value = parse_json(raw.content[member.end() :])
        if not isinstance(value, dict | list):
            raise BadRow("not_an_object", f"{key!r} is {type(value).__name__}, expected an object or a list")
    except (BadRow, ValueError) as error:
        fault = error if isinstance(error, BadRow) else BadRow("broken_json", str(error))
        return RawRow(raw.file, raw.line, raw.byte_offset, raw.content, fault)
    record = {"id": key, **value} if isinstance(value, dict) else {"id": key, "values": value}
    return RawRow(raw.file, raw.line, raw.byte_offset, record)


def _spans(data: mmap.mmap, opening: bytes) -> Iterator[tuple[int, int, BadRow | None]]:
    """First byte, end and fault of each element of an array, or of each member of an object."""
    begin = complete = data.find(opening) + 1
    closing = b"]" if opening == b"[" else b"}"
    open_brackets: list[bytes] = []
    wrong = f"the file ends before the {'array' if opening == b'[' else 'object'} is closed"
    for token in _TOKEN.finditer(data, begin):
        mark, here = token[0][:1], token.start()
        if mark in b"[{":
            open_brackets.append(mark)
        elif mark in (b",", closing) and not open_brackets:
            start, stop = _trim(data, begin, here)
            if start < stop:
                yield start, stop, None
            elif mark == b"," or data[begin - 1 : begin] == b",":
                wrong = f"an element is missing before {mark.decode()!r} at byte {here}"
                break
            begin = complete = here + 1
            if mark == closing:
                yield from _after_the_end(data, begin)
                return
        elif mark in b"]}":
            if not open_brackets or open_brackets.pop() != _CLOSES[mark]:
                wrong = f"{mark.decode()!r} at byte {here} closes no bracket of its kind"
                break
            complete = complete if open_brackets else token.end()
        elif token[0] == b'"':
            wrong = f"the string that begins at byte {here} never ends"
            break
    if complete > begin:
        yield (*_trim(data, begin, complete), None)
    yield (*_trim(data, complete, len(data)), BadRow("broken_json", f"{wrong}; nothing after this can be read"))


def _after_the_end(data: mmap.mmap, end: int) -> Iterator[tuple[int, int, BadRow | None]]:
    start, stop = _trim(data, end, len(data))
    if start < stop:
        yield start, stop, BadRow("broken_json", "text after the end of the file's array or object")


def _trim(data: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    while start < stop and data[start] in BLANK:
        start += 1
    while stop > start and data[stop - 1] in BLANK:
        stop -= 1
    return start, stop


def _too_long(num_bytes: int) -> BadRow:
    return BadRow("too_long", f"{num_bytes:,} bytes; at most {MAX_RECORD_BYTES:,} are accepted")
