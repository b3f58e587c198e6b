"""A file's bytes as UTF-8 text, whatever it is compressed with or encoded in. Where it breaks off, reading ends.

A damaged archive is not an error of the run: the rows before the damage are good, the one it cuts is refused.
"""

import codecs
import contextlib
import gzip
import io
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import BinaryIO, cast

from didact.datasets.places.remote_stream import SourceFile
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.errors import DataError

COMPRESSIONS = (".gz", ".zst")
_CHUNK_BYTES = 1 << 20
_PIECE_BYTES = 1 << 14


def data_suffix(path: PurePath | SourceFile) -> str:
    """What a file holds by its name, compression left out: `.jsonl` for `rows.jsonl.gz`."""
    name = PurePath(path.name)
    return (name.with_suffix("") if name.suffix.lower() in COMPRESSIONS else name).suffix.lower()


class _Bytes(io.RawIOBase):
    """Pieces of bytes as a stream; damage ends it and is kept as `fault`."""

    def __init__(self, pull: Callable[[int], bytes]) -> None:
        self._pull = pull
        self._left = b""
        self.fault: BadRow | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left and self.fault is None:
            try:
                self._left = self._pull(len(buffer))
            except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
                self.fault = BadRow("damaged_file", f"the file cannot be read beyond this row: {error}")
        piece, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(piece)] = piece
        return len(piece)


@dataclass(frozen=True, slots=True)
class ByteSource:
    """An open file."""

    stream: BinaryIO
    """Its content as UTF-8."""
    exact_offsets: bool
    """Whether places in `stream` are places in the content as it was written."""
    layers: tuple[_Bytes, ...]

    @property
    def fault(self) -> BadRow | None:
        """Why `stream` ended early, or None."""
        return next((layer.fault for layer in self.layers if layer.fault is not None), None)


@contextlib.contextmanager
def open_bytes(path: SourceFile, encoding: str | None = None) -> Iterator[ByteSource]:
    """Open a file, plain, gzip (`.gz`) or Zstandard (`.zst`).

    Args:
        path: the file, on this machine or elsewhere.
        encoding: Python's name of its text encoding; None for UTF-8, which is passed on unchecked, row by row.

    Raises:
        DataError: there is no such encoding.
    """
    with contextlib.ExitStack() as stack:
        layers: list[_Bytes] = []
        stream: BinaryIO = stack.enter_context(path.open("rb"))
        if path.suffix.lower() == ".gz":
            unzip = stack.enter_context(gzip.GzipFile(fileobj=stream))
            layers.append(_Bytes(unzip.read1))
            stream = cast(BinaryIO, io.BufferedReader(layers[-1], _CHUNK_BYTES))
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # carries the codec; takes a while to import

            inflate = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd"))
            # A small piece at a time: one that meets the damage is lost whole.
            layers.append(_Bytes(lambda count: inflate.read(min(count, _PIECE_BYTES))))
            stream = cast(BinaryIO, io.BufferedReader(layers[-1], _CHUNK_BYTES))
        if encoding is not None:
            layers.append(_Bytes(_transcoder(stream, encoding)))
            stream = cast(BinaryIO, io.BufferedReader(layers[-1], _CHUNK_BYTES))
        yield ByteSource(stream, encoding is None, tuple(layers))


@contextlib.contextmanager
def mapped(path: Path, encoding: str | None = None) -> Iterator[tuple[mmap.mmap, ByteSource]]:
    """A file's content as a memory map; compressed or re-encoded content is laid in a temporary file first."""
    with open_bytes(path, encoding) as source, contextlib.ExitStack() as stack:
        file = source.stream
        if source.layers:
            file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))
            shutil.copyfileobj(source.stream, file, _CHUNK_BYTES)
            if file.tell() == 0:
                file.write(b" ")  # nothing cannot be mapped
            file.flush()
        yield stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), source


def until_damage(rows: Iterator[RawRow], source: ByteSource, path: SourceFile) -> Iterator[RawRow]:
    """The rows of an open file; the one that its damage cuts short is refused, and offsets that mean nothing are left
    out."""
    held: RawRow | None = None
    for row in rows:
        if held is not None:
            yield held
        held = row if source.exact_offsets else replace(row, byte_offset=None)
    if source.fault is not None:
        cut = held or RawRow(str(path), 1, 0 if source.exact_offsets else None, b"")
        yield replace(cut, fault=source.fault)
    elif held is not None:
        yield held


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
