"""Files -> raw rows with their position. Knows lines and JSON arrays and objects, nothing of what a row means.

Every reader is a generator: one row is in memory at a time. A row whose end is known costs itself only when it is bad;
where nobody can tell how many rows are lost, the file is refused with `Damage`.
"""

import contextlib
import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from didact.datasets.places.archives import mapped, open_bytes, with_exact_offsets
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.decoding import decode_text, parse_json
from didact.datasets.rows.raw_row import BOM, MAX_RECORD_BYTES, SHOWN_BYTES, BadRow, Damage, RawRow, too_long
from didact.errors import DataError

BLANK = b" \t\r\n"
_Content = bytes | mmap.mmap
_SKIP_BYTES = 1 << 20
_CLOSES = {b"]": b"[", b"}": b"{"}
# Possessive, so that a missing closing quote costs one scan of the file and not one per character.
_MEMBER = re.compile(rb'"((?:[^"\\]|\\.)*+)"\s*+:\s*+', re.DOTALL)
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
# What stands between two rows, at the end of what is taken for a text because a quote before it has no partner.
_SWALLOWED = re.compile(rb'[\]}]\s*,[\s\[{]*"\Z')
_BETWEEN_BYTES = 200


@dataclass(frozen=True, slots=True)
class Lines:
    """The lines of a plain file that begin in a range of its bytes."""

    start: int
    stop: int
    before: int
    """Line feeds in the bytes before `start`."""


def read_lines(
    path: SourceFile,
    blank: bytes | None = BLANK,
    encoding: str | None = None,
    lines: Lines | None = None,
    mark: bytes | None = None,
) -> Iterator[RawRow]:
    """Rows of a file with one row a line, line end removed. A byte order mark is passed over.

    Args:
        path: the file, plain or compressed.
        blank: a line of these bytes only is not a row; None makes every line a row.
        encoding: how the text is written; None for UTF-8.
        lines: only these, of a plain file in UTF-8; None for all.
        mark: what stands between the columns of a line; None where lines are JSON or plain text.

    Raises:
        DataError: there is no such encoding.
        Damage: the last line is cut in its middle.
    """
    with open_bytes(path, encoding) as source:
        yield from with_exact_offsets(_lines(path, source.stream, blank, lines, mark), source)


def read_array(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """Elements of a JSON array, each cut out by its brackets, so that a bad element spoils no other.

    Raises:
        Damage: the brackets do not match, or something follows the array.
    """
    with mapped(path, encoding) as (data, source):
        yield from with_exact_offsets(_elements(path, data, b"["), source)


def read_keyed(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """Members of a JSON object whose keys are the rows' names: `{"7": {...}, "8": {...}}`.

    A row is its value with the key as `id` added; a value that is a list becomes `{"id": key, "values": [...]}`.

    Raises:
        Damage: as `read_array`.
    """
    seen: set[str] = set()
    with mapped(path, encoding) as (data, source):
        for raw in with_exact_offsets(_elements(path, data, b"{"), source):
            yield _named(raw, seen) if raw.fault is None else raw


def read_object(path: Path, encoding: str | None = None) -> Iterator[RawRow]:
    """A file that is one JSON object over several lines: one row.

    Raises:
        Damage: the object has no end.
    """
    with mapped(path, encoding) as (data, source):
        start, stop = _trim(data, len(BOM) if data[:3] == BOM else 0, len(data))
        fault = too_long(stop - start) if stop - start > MAX_RECORD_BYTES else None
        content = data[start : stop if fault is None else start + SHOWN_BYTES]
        if fault is None and _is_cut(content):
            raise Damage(f"it ends in the middle of the object that begins at byte {start:,}")
        row = RawRow(str(path), data[:start].count(b"\n") + 1, start, content, fault)
        yield from with_exact_offsets(iter([row]), source)


def read_inside(path: Path, each: str, encoding: str | None = None) -> Iterator[RawRow]:
    """Elements of a list inside a file's one object, with the other fields of the object beside their own.

    Args:
        path: the file.
        each: name of the list, such as `data`, or `result.rows` for one inside an object inside the file's.
        encoding: how the text is written; None for UTF-8.

    Raises:
        Damage: as `read_array`.
        DataError: there is no such list.
    """
    with mapped(path, encoding) as (data, source):
        start, stop = _trim(data, len(BOM) if data[:3] == BOM else 0, len(data))
        outer: dict[str, Any] = {}
        for name in each.split("."):
            if data[start : start + 1] != b"{" or data[stop - 1 : stop] != b"}":
                raise Damage(f"an object is expected at byte {start:,}, to hold {name!r} of options.each")
            start, stop = _member(data, start, stop, name, outer)
        if data[start : start + 1] != b"[":
            raise DataError(f"{path}: {each!r} of options.each is no list")
        rows = _rows_between(path, data, start + 1, b"]", stop)
        yield from with_exact_offsets((_beside(raw, outer) for raw in rows), source)


def _member(data: _Content, start: int, stop: int, name: str, outer: dict[str, Any]) -> tuple[int, int]:
    """First byte and end of a member's value; the other members are added to `outer`."""
    found: tuple[int, int] | None = None
    for first, last, fault in _spans(data, start + 1, b"}", stop):
        member = _MEMBER.match(data, first, last)
        if fault is not None or member is None:
            raise _damage(data, first, 'expected "name": value')
        key = decode_text(member[1])
        if key == name:
            found = member.end(), last
            continue
        try:
            outer[key] = parse_json(data[member.end() : last])
        except BadRow as bad:
            raise _damage(data, first, bad.detail) from None
    if found is None:
        names = ", ".join(repr(key) for key in list(outer)[:10]) or "none"
        raise DataError(f"options.each names {name!r}, which is not there; found {names}")
    return found


def _beside(raw: RawRow, outer: dict[str, Any]) -> RawRow:
    if raw.fault is not None:
        return raw
    assert isinstance(raw.content, bytes)
    try:
        item = parse_json(raw.content)
    except BadRow as bad:
        return replace(raw, fault=bad)
    record = {**outer, **(item if isinstance(item, dict) else {"item": item})}
    return replace(raw, content=record)


def members(path: Path, count: int, encoding: str | None = None) -> list[tuple[str, bytes]]:
    """The first members of a JSON object: each key, and the first bytes of its value."""
    found: list[tuple[str, bytes]] = []
    # Whether the object is whole is for its reader to say.
    with mapped(path, encoding) as (data, _), contextlib.suppress(Damage):
        for start, stop, fault in _spans(data, data.find(b"{") + 1, b"}", len(data)):
            member = _MEMBER.match(data, start, stop)
            if fault is not None or member is None or len(found) == count:
                break
            found.append((member[1].decode("utf-8", errors="replace"), bytes(data[member.end() : member.end() + 64])))
    return found


def _lines(
    path: SourceFile, stream: BinaryIO, blank: bytes | None, lines: Lines | None, mark: bytes | None
) -> Iterator[RawRow]:
    before = b""
    line, offset = _first_line(stream, lines) if lines is not None and lines.start else (0, 0)
    while (lines is None or offset < lines.stop) and (piece := stream.readline(MAX_RECORD_BYTES + 1)):
        line, start = line + 1, offset
        offset += len(piece)
        fault = None
        if len(piece) > MAX_RECORD_BYTES and not piece.endswith(b"\n"):
            while not piece.endswith(b"\n") and (rest := stream.readline(_SKIP_BYTES)):
                offset += len(rest)
                piece = piece[:SHOWN_BYTES] + rest[-1:]
            fault = too_long(offset - start)
        elif not piece.endswith(b"\n") and piece.strip(blank) and _is_cut(piece, mark, before):
            raise Damage(f"it ends in the middle of line {line:,}")
        before = piece
        if line == 1 and piece.startswith(BOM):
            piece, start = piece[len(BOM) :], start + len(BOM)
        if blank is None or piece.strip(blank):
            yield RawRow(str(path), line, start, piece.rstrip(b"\r\n"), fault)


def _is_cut(last: bytes, mark: bytes | None = None, before: bytes = b"") -> bool:
    """Whether JSON, or a line of columns, that no line end follows breaks off before its own end.

    Args:
        last: the bytes at the end of a file.
        mark: what stands between columns; None for JSON. Text that begins with no bracket is taken for whole.
        before: the line before it, which has as many columns.
    """
    if last.endswith(b"\0"):
        return True  # a file that was given its length before its content
    if mark is not None:
        return last.count(mark) < before.count(mark)
    if last.removeprefix(BOM).lstrip()[:1] not in (b"{", b"["):
        return False
    depth = 0
    for token in _TOKEN.finditer(last):
        if token[0] == b'"':
            return True
        depth += (token[0] in b"[{") - (token[0] in b"]}")
    return depth > 0


def _first_line(stream: BinaryIO, lines: Lines) -> tuple[int, int]:
    """Go to the first line that begins in the range; the lines before it, and its first byte."""
    stream.seek(lines.start - 1)
    skipped = 0
    # The line that runs into the range belongs to the range where it began.
    while rest := stream.readline(_SKIP_BYTES):
        skipped += len(rest)
        if rest.endswith(b"\n"):
            break
    return lines.before + (skipped > 1), lines.start - 1 + skipped


def _elements(path: Path, data: _Content, opening: bytes) -> Iterator[RawRow]:
    closing, kind = (b"]", "array") if opening == b"[" else (b"}", "object")
    first, end = _trim(data, len(BOM) if data[:3] == BOM else 0, len(data))
    if data[first : first + 1] != opening:
        raise Damage(f"it begins with {data[first : first + 10]!r}, expected the {opening.decode()} of an {kind}")
    if data[end - 1 : end] != closing:  # seen before any row is given out
        raise Damage(f"it ends before the {closing.decode()} of its {kind}")
    yield from _rows_between(path, data, first + 1, closing, len(data))


def _rows_between(path: Path, data: _Content, begin: int, closing: bytes, end: int) -> Iterator[RawRow]:
    line, counted = 1, 0
    for number, (start, stop, fault) in enumerate(_spans(data, begin, closing, end), start=1):
        line, counted = line + data[counted:start].count(b"\n"), start
        if fault is None and stop - start > MAX_RECORD_BYTES:
            fault = too_long(stop - start)
        content = data[start : stop if fault is None else min(stop, start + SHOWN_BYTES)]
        yield RawRow(str(path), line, start, content, fault, number)


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
        return replace(raw, fault=fault)
    record = {"id": key, **value} if isinstance(value, dict) else {"id": key, "values": value}
    return replace(raw, content=record)


def _spans(data: _Content, begin: int, closing: bytes, end: int) -> Iterator[tuple[int, int, BadRow | None]]:
    """First byte, end and fault of each element of an array, or of each member of an object.

    Raises:
        Damage: nobody can tell where the next element begins, or something follows the last one.
    """
    for stop, is_garbled in _ends(data, begin, closing):
        start, last = _trim(data, begin, stop)
        if start < last:
            if is_garbled and not _is_json(data[start:last]):
                raise _damage(data, start, "a quote has no partner in what begins here")
            yield start, last, None
        elif data[stop : stop + 1] == b"," or data[begin - 1 : begin] == b",":
            found = data[stop : stop + 1].decode()
            yield stop, stop + 1, BadRow("broken_json", f"an element is missing before {found!r}")
        begin = stop + 1
    start, last = _trim(data, begin, end)
    if start < last:
        raise _damage(data, start, f"something follows the {closing.decode()} that ends the whole")


def _ends(data: _Content, begin: int, closing: bytes) -> Iterator[tuple[int, bool]]:
    """The comma or bracket behind each element, and whether the element may hold several for want of a quote."""
    open_brackets: list[bytes] = []
    is_whole = is_garbled = False
    before = b""
    for token in _TOKEN.finditer(data, begin):
        here, stop = token.span()
        mark = data[here : here + 1]
        if mark == b'"':
            if stop - here == 1:
                raise _damage(data, here, "the text that begins here never ends")
            is_garbled = is_garbled or (
                data[stop - 2] in b",[{" + BLANK
                and _SWALLOWED.search(data, max(here, stop - _BETWEEN_BYTES), stop) is not None
            )
        elif mark in b"[{":
            if is_whole:
                raise _damage(data, here, "a comma is missing before this")
            if before in (b",", b"{") and open_brackets[-1:] == [b"{"]:
                raise _damage(data, here, "a } is missing before this, or a name")
            open_brackets.append(mark)
        elif not open_brackets and mark in (b",", closing):
            yield here, is_garbled
            if mark == closing:
                return
            is_whole = is_garbled = False
        elif mark != b",":
            if not open_brackets or open_brackets.pop() != _CLOSES[mark]:
                raise _damage(data, here, f"this {mark.decode()} closes no bracket of its kind")
            is_whole = not open_brackets
        before = mark
    raise Damage("a bracket that it opens is never closed")


def _damage(data: _Content, place: int, what: str) -> Damage:
    line = data[:place].count(b"\n") + 1
    return Damage(f"line {line:,}, byte {place:,} ({data[place : place + 30].decode('utf-8', 'replace')!r}): {what}")


def _is_json(content: bytes) -> bool:
    member = _MEMBER.match(content)
    try:
        parse_json(content[member.end() if member else 0 :])
    except BadRow as bad:
        return bad.reason != "broken_json"
    return True


def _trim(data: _Content, start: int, stop: int) -> tuple[int, int]:
    while start < stop and data[start] in BLANK:
        start += 1
    while stop > start and data[stop - 1] in BLANK:
        stop -= 1
    return start, stop
