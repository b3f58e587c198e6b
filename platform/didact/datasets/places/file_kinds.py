"""What a file is by its first bytes, where it holds no rows: archives, workbooks, databases, web pages, pointers.

Names lie: a login page is saved as `.json`, an archive renamed to `.jsonl`. Read as lines, both give nonsense.
"""

import html
import re
import zipfile
from pathlib import Path

from didact.datasets.places.archives import COMPRESSIONS, open_bytes
from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.options import Container
from didact.datasets.rows.raw_row import BOM
from didact.errors import DataError

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""
_UNPACK = "unpack it, and give the file or folder that comes out as path"
_EXPORT = "write what it holds as JSON lines, CSV or Parquet, and give that as path"
_COLUMNS: dict[Container, tuple[bytes, ...]] = {"parquet": (b"PAR1",), "arrow": (b"ARROW1", b"\xff\xff\xff\xff")}
_PACKED = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".bz2": re.compile(rb"BZh[1-9]1AY&SY"),
    ".xz": re.compile(rb"\xfd7zXZ\0"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
}
_LONGEST_MARK = 10
# What begins with what, told apart from text: by bytes that no text has, or by words that no row begins with.
_KINDS = (
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive", _UNPACK),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive", _UNPACK),
    (re.compile(rb"Rar!\x1a\x07"), "a RAR archive", _UNPACK),
    (re.compile(rb"\x04\x22\x4d\x18"), "compressed with lz4", "unpack it, or compress it with gzip or zstd"),
    (re.compile(rb"SQLite format 3\0"), "an SQLite database", _EXPORT),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "a file of Excel or Word before 2007", "save it as CSV"),
    (re.compile(rb"\x80[\x02-\x05]"), "a Python pickle, which can run any code when it is loaded", _EXPORT),
    (re.compile(rb"\x89HDF\r\n"), "an HDF5 file", _EXPORT),
    (re.compile(rb"\x93NUMPY"), "a NumPy array", _EXPORT),
    (re.compile(rb"Obj\x01"), "an Avro file", _EXPORT),
    (re.compile(rb"%PDF-"), "a PDF", "write its text into a text file"),
    (re.compile(rb"version https://git-lfs\.github\.com/spec/"), "a pointer of git-lfs", "run `git lfs pull`"),
)
_PAGE = re.compile(rb"\s*(?:<!doctype\s+html|<html|<head\b|<\?xml|<!--)", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]*>([^<]*)", re.IGNORECASE)
_PART_OF_A_MODEL = re.compile(r"(?:^|/)data\.pkl$")
_SHOWN_NAMES = 5


def beginning(path: SourceFile, named: str) -> bytes:
    """The first bytes of a file's content, decompressed.

    Raises:
        DataError: it is not compressed as its name says.
        Damage: it is so, and breaks at once.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as stream:
        raw = stream.read(HEAD_BYTES)
    if suffix not in COMPRESSIONS:
        return raw
    # Of fewer bytes than the mark has, that they are cut is said by whoever reads them.
    if len(raw) >= _LONGEST_MARK and not _PACKED[suffix].match(raw):
        found = kind_of(raw, path) or "not compressed, although its name says so; take the ending off its name"
        raise DataError(f"{named} is {found}")
    with open_bytes(path) as source:
        return source.stream.read(HEAD_BYTES)


def refuse_other_kinds(
    path: SourceFile, named: str, head: bytes, container: Container, encoding: str | None, *, may_be_page: bool
) -> None:
    """Refuse a file that is no data, or other data than it is to be read as.

    Args:
        path: the file.
        named: as the user names it.
        head: its first bytes, decompressed.
        container: how it is to be read.
        encoding: of its text, where that is told.
        may_be_page: whether it may be a web page, as plain text may.

    Raises:
        DataError: what the file is, and what to do.
    """
    if container in _COLUMNS and (not head or head.startswith(_COLUMNS[container])):
        return
    found = kind_of(head, path, page=not may_be_page) or _columns_of(head)
    if found is None and container == "parquet" and len(head) >= len(_COLUMNS[container][0]):
        found = f"no Parquet file: it begins with {head[:8]!r}"
    if found is None and container not in _COLUMNS and encoding is None:
        found = _binary(head, container)
    if found is not None:
        raise DataError(f"{named} is {found}")


def kind_of(head: bytes, path: SourceFile, *, page: bool = True) -> str | None:
    """What begins with these bytes and what to do about it, where that holds no rows."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path)
    for suffix, mark in _PACKED.items():
        if mark.match(head):
            return f"compressed: let its name end in {suffix}, so that it is read as such"
    for pattern, what, advice in _KINDS:
        if pattern.match(head):
            return f"{what}; {advice}"
    if page and _PAGE.match(head.removeprefix(BOM)):
        title = _TITLE.search(head)
        name = f", {html.unescape(' '.join(title[1].decode('utf-8', 'replace').split()))!r}" if title else ""
        return f"a web page{name}; the address may need a login, or be that of a page about the data"
    return None


def _zip(path: SourceFile) -> str:
    names: list[str] = []
    if isinstance(path, Path) and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
        return "an Excel workbook; save each sheet as CSV, and give those as path"
    if "word/document.xml" in names:
        return "a Word document; save it as plain text"
    if any(_PART_OF_A_MODEL.search(name) for name in names):
        return f"a file of PyTorch with a pickle inside, which can run any code when it is loaded; {_EXPORT}"
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    inside = f" of {', '.join(names[:_SHOWN_NAMES])}{more}" if names else ""
    return f"a zip archive{inside}; {_UNPACK}"


def container_of(head: bytes) -> Container | None:
    """Of columns in a binary form, told by their first bytes; None for all else."""
    return next((container for container, marks in _COLUMNS.items() if head.startswith(marks)), None)


def _columns_of(head: bytes) -> str | None:
    found = container_of(head)
    return f"{found}: let its name end in .{found}, or set options.container: {found}" if found else None


def _binary(head: bytes, container: Container) -> str | None:
    """Whether text that is not said to be in another encoding than UTF-8 is none."""
    for mark, name in ((b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if head.startswith(mark):
            return f"text in another encoding than UTF-8: set options.encoding: {name}"
    start = head[:64]
    if len(start) > 4 and not any(start[1::2]) and all(start[0::2]):
        return "text in another encoding than UTF-8: set options.encoding: utf-16-le"
    if len(start) > 4 and not any(start[0::2]) and all(start[1::2]):
        return "text in another encoding than UTF-8: set options.encoding: utf-16-be"
    if head.removeprefix(BOM).lstrip()[:1] in (b"{", b"["):
        return None  # bad bytes in a row cost that row
    first_line = head[:1024].split(b"\n", 1)[0]
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in head[:512])
    if b"\0" in first_line or control > len(head[:512]) // 10:
        return f"binary data of a kind that is not known, and no {container}; it begins with {head[:12]!r}"
    return None
