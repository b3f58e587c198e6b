"""Files -> raw rows with their position. Knows lines and JSON arrays, nothing of what a row means.

Every reader is a generator: one row is in memory at a time, and a damaged row costs that row only.
"""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from didact.datasets.rows import MAX_RECORD_BYTES, BadRow, RawRow

BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
_SHOWN_BYTES = 8_192
_SKIP_BYTES = 1 << 20
_CLOSES = {b"]": b"[", b"}": b"{"}
# Possessive, so that a missing closing quote costs one scan of the file and not one per character.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)


def is_json_array(path: Path) -> bool:
    """Whether a file's first byte that is not blank opens a JSON array. A `.jsonl` file always holds lines."""
    if path.suffix.lower() == ".jsonl":
        return False
    with path.open("rb") as stream:
        head = stream.read(_SHOWN_BYTES).removeprefix(BOM)
    return head.lstrip(_BLANK).startswith(b"[")


def read_lines(path: Path, blank: bytes = _BLANK) -> Iterator[RawRow]:
    """Rows of a file with one row a line, line end removed. A byte order mark is passed over.

    Args:
        path: the file.
        blank: a line of these bytes only is not a row.
    """
    with path.open("rb") as stream:
        line = offset = 0
        while piece := stream.readline(MAX_RECORD_BYTES + 1):
            line, start = line + 1, offset
            offset += len(piece)
            fault = None
            if len(piece) > MAX_RECORD_BYTES and not piece.endswith(b"\n"):
                while not piece.endswith(b"\n") and (rest := stream.readline(_SKIP_BYTES)):
                    offset += len(rest)
                    piece = piece[:_SHOWN_BYTES] + rest[-1:]
                fault = _too_long(offset - start)
            if line == 1 and piece.startswith(BOM):
                piece, start = piece[len(BOM) :], start + len(BOM)
            if piece.strip(blank):
                yield RawRow(str(path), line, start, piece.rstrip(b"\r\n"), fault)


def read_array(path: Path) -> Iterator[RawRow]:
    """Elements of a JSON array, each cut out by its brackets, so that a damaged element spoils no other.

    Where the brackets themselves no longer match, everything from the element that holds the break is one bad row.
    """
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    line, counted = 1, 0
    for start, stop, fault in _spans(data):
        line, counted = line + data[counted:start].count(b"\n"), start
        if fault is None and stop - start > MAX_RECORD_BYTES:
            fault = _too_long(stop - start)
        content = data[start : stop if fault is None else min(stop, start + _SHOWN_BYTES)]
        yield RawRow(str(path), line, start, content, fault)


def _spans(data: mmap.mmap) -> Iterator[tuple[int, int, BadRow | None]]:
    """First byte, end and fault of each element."""
    begin = complete = data.find(b"[") + 1
    open_brackets: list[bytes] = []
    wrong = "the file ends before the array is closed"
    for token in _TOKEN.finditer(data, begin):
        mark, here = token[0][:1], token.start()
        if mark in b"[{":
            open_brackets.append(mark)
        elif mark in b",]" and not open_brackets:
            start, stop = _trim(data, begin, here)
            if start < stop:
                yield start, stop, None
            elif mark == b"," or data[begin - 1 : begin] == b",":
                wrong = f"an element is missing before {mark.decode()!r} at byte {here}"
                break
            begin = complete = here + 1
            if mark == b"]":
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
        yield start, stop, BadRow("broken_json", "text after the end of the array")


def _trim(data: mmap.mmap, start: int, stop: int) -> tuple[int, int]:
    while start < stop and data[start] in _BLANK:
        start += 1
    while stop > start and data[stop - 1] in _BLANK:
        stop -= 1
    return start, stop


def _too_long(num_bytes: int) -> BadRow:
    return BadRow("too_long", f"{num_bytes:,} bytes; at most {MAX_RECORD_BYTES:,} are accepted")
