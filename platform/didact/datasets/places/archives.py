"""A file's bytes as UTF-8 text, whatever it is compressed with or encoded in. Where it breaks off, reading is refused.

What was lost behind a break is not known, so no row of a damaged file is used, whatever share of bad rows is allowed.
"""

import bz2
import codecs
import contextlib
import io
import lzma
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.raw_row import Damage, RawRow
from didact.errors import DataError

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),
    ".bz2": bz2.BZ2Decompressor,
    ".xz": lzma.LZMADecompressor,
}
COMPRESSIONS = (*_DECOMPRESSORS, ".zst")
IN_MEMORY_BYTES = 1 << 28
"""Most bytes of a file that are held in memory at once."""
_CHUNK_BYTES = 1 << 20
_COMPRESSED_BYTES = 1 << 15
"""Compressed bytes taken at a time: they may become a thousand times as many."""
_EMPTY = "it is empty, and not even nothing is compressed to nothing"


def data_suffix(path: PurePath | SourceFile) -> str:
    """What a file holds by its name, compression left out: `.jsonl` for `rows.jsonl.gz`."""
    name = PurePath(path.name)
    return (name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name).suffix.lower()


class _Bytes(io.RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pull: Callable[[int], bytes]) -> None:
        self._pull = pull
        self._left = b""
        self._num_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            try:
                self._left = self._pull(len(buffer))
            except (OSError, EOFError, zlib.error, lzma.LZMAError, UnicodeDecodeError) as error:
                raise Damage(f"it breaks off after {self._num_read:,} bytes of content: {error}") from error
        piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(piece)] = piece
        self._num_read += len(piece)
        return len(piece)


@dataclass(frozen=True, slots=True)
class ByteSource:
    """An open file."""

    stream: BinaryIO
    """Its content as UTF-8."""
    exact_offsets: bool
    """Whether places in `stream` are places in the content as it was written."""
    plain: bool
    """Whether `stream` is the file itself."""


@contextlib.contextmanager
def open_bytes(path: SourceFile, encoding: str | None = None) -> Iterator[ByteSource]:
    """Open a file, plain or compressed as its name says: `.gz`, `.bz2`, `.xz`, `.zst`.

    Args:
        path: the file, on this machine or elsewhere.
        encoding: Python's name of its text encoding; None for UTF-8, which is passed on unchecked, row by row.

    Raises:
        DataError: there is no such encoding.
        Damage: while it is read, that it breaks off or is not compressed as its name says.
    """
    with contextlib.ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(path.open("rb"))
        plain = True
        suffix = path.suffix.lower()
        if suffix in COMPRESSIONS:
            stream, plain = _buffered(_inflater(stream, suffix, stack)), False
        if encoding is not None:
            stream, plain = _buffered(_transcoder(stream, encoding)), False
        yield ByteSource(stream, encoding is None, plain)


def _buffered(pull: Callable[[int], bytes]) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Bytes(pull), _CHUNK_BYTES))


def _inflater(stream: BinaryIO, suffix: str, stack: contextlib.ExitStack) -> Callable[[int], bytes]:
    """Gives the next bytes of what is compressed in a stream, and raises where that breaks or ends too early."""
    if suffix in _DECOMPRESSORS:
        pieces = _members(stream, suffix)
        return lambda _: next(pieces, b"")
    import pyarrow as pa  # carries the codec; takes a while to import

    inflate = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"))

    def pull(count: int) -> bytes:
        piece: bytes = inflate.read(count)
        if not piece and not stream.tell():
            raise EOFError(_EMPTY)
        return piece

    return pull


def _members(stream: BinaryIO, suffix: str) -> Iterator[bytes]:
    """The content of all members of a compressed file, each of which must end as it should.

    The standard library's readers of `.bz2` and `.xz` pass over whatever follows a member when they cannot read it.
    """
    machine: Any = None
    left = b""
    while data := left or stream.read(_COMPRESSED_BYTES):
        left = b""
        if machine is None:
            machine = _DECOMPRESSORS[suffix]()
        elif machine.eof:
            # Behind a member may be zeros that fill the file up to some size.
            data = data.lstrip(b"\0")
            if not data:
                continue
            machine = _DECOMPRESSORS[suffix]()
        if piece := machine.decompress(data):
            yield piece
        left = machine.unused_data
    if machine is None:
        raise EOFError(_EMPTY)
    if not machine.eof:
        raise EOFError("the compressed stream has no end")


@contextlib.contextmanager
def mapped(path: Path, encoding: str | None = None) -> Iterator[tuple[bytes | mmap.mmap, ByteSource]]:
    """A file's content at once: in memory, or as a memory map where it is large.

    Large compressed or re-encoded content is laid in a temporary file first.
    """
    with open_bytes(path, encoding) as source, contextlib.ExitStack() as stack:
        # A map of a file that somebody cuts meanwhile would end this process, so only large ones are mapped.
        content = source.stream.read(IN_MEMORY_BYTES + 1)
        if len(content) <= IN_MEMORY_BYTES:
            yield content, source
            return
        file = source.stream
        if not source.plain:
            file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
            file.write(content)
            shutil.copyfileobj(source.stream, file, _CHUNK_BYTES)
            file.flush()
        del content
        yield stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), source


def with_exact_offsets(rows: Iterator[RawRow], source: ByteSource) -> Iterator[RawRow]:
    """The rows of an open file; offsets that mean nothing are left out."""
    return rows if source.exact_offsets else (replace(row, byte_offset=None) for row in rows)


@contextlib.contextmanager
def damage_of(file: str) -> Iterator[None]:
    """Say of which file a `Damage` is that is met inside; `file` as the user names it."""
    try:
        yield
    except Damage as damage:
        raise DataError(
            f"{file} is damaged or incomplete: {damage}. No row of it is used, since nobody can tell what is lost; get "
            "the file again, or repair it at that place"
        ) from damage


def _transcoder(stream: BinaryIO, encoding: str) -> Callable[[int], bytes]:
    try:
        decoder = codecs.getincrementaldecoder(encoding)(errors="surrogateescape")
    except LookupError as error:
        raise DataError(f"options.encoding {encoding!r}: {error}; give a name such as gb18030 or utf-16") from None

    def pull(_: int) -> bytes:
        # A byte that is no text becomes half a character, which the check of its row then refuses.
        while piece := stream.read(_CHUNK_BYTES):
            if text := decoder.decode(piece):
                return text.encode("utf-8", errors="surrogatepass")
        return decoder.decode(b"", final=True).encode("utf-8", errors="surrogatepass")

    return pull
