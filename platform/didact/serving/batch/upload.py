"""A file that comes over HTTP as a form: written to disk piece by piece, within limits.

multipart/form-data -> receive -> Upload(content, filename, fields)
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from starlette.requests import ClientDisconnect
from werkzeug.exceptions import HTTPException
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from didact.serving.api.api_errors import ApiError

_FORM_BYTES = 100_000
_LONGEST_FIELD = 10_000
_WHOLE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Upload:
    """What a form held."""

    content: Path
    filename: str
    fields: dict[str, str]


@contextlib.asynccontextmanager
async def received(request: Request, place: Path, *, most_bytes: int, piece_seconds: float) -> AsyncIterator[Upload]:
    """The form of a request, with its one file `file` written to `place`, which is removed at the block's end.

    Args:
        request: with the form as its body.
        place: where to write.
        most_bytes: of the file.
        piece_seconds: longest time between two pieces of the body.

    Raises:
        ApiError: it is no such form, too large or too slow.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != "multipart/form-data" or not _is_boundary(options.get("boundary", "")):
        message = (
            f"The body: found {kind[:80] or 'no content-type'}; expected multipart/form-data with purpose and file."
        )
        raise ApiError(400, message, code="invalid_value", param="file")
    reader = _Reader(options["boundary"], most_bytes)
    try:
        with place.open("wb") as stream:
            await _read(request, reader, stream, piece_seconds)
        if not reader.has_file:
            raise ApiError(400, "file: missing; expected a file.", code="missing_required_parameter", param="file")
        yield Upload(place, reader.filename, reader.fields)
    finally:
        place.unlink(missing_ok=True)


async def _read(request: Request, reader: "_Reader", stream: IO[bytes], piece_seconds: float) -> None:
    pieces = request.stream()
    try:
        async with asyncio.timeout(_WHOLE_SECONDS):
            while True:
                async with asyncio.timeout(piece_seconds):
                    piece = await anext(pieces, b"")
                for start in range(0, len(piece), _FORM_BYTES // 2):
                    reader.take(piece[start : start + _FORM_BYTES // 2], stream)
                if not piece:
                    reader.take(None, stream)
                if reader.ended:
                    return
    except TimeoutError:
        message = f"The body stopped coming for {piece_seconds:g} seconds, or took over {_WHOLE_SECONDS:g} in all."
        raise ApiError(408, message, code="request_timeout") from None
    except ClientDisconnect:
        raise ApiError(400, "The body ended too early.", code="invalid_value", param="file") from None
    except (HTTPException, ValueError) as error:  # the decoder's words for a broken form
        message = f"The body is no multipart/form-data: {error}"[:200]
        raise ApiError(400, message, code="invalid_value", param="file") from None


def _is_boundary(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isascii()


class _Reader:
    """Takes a form's bytes as they come."""

    def __init__(self, boundary: str, most_bytes: int) -> None:
        self._decoder = MultipartDecoder(boundary.encode("latin-1"), max_form_memory_size=_FORM_BYTES, max_parts=20)
        self._most_bytes, self._written = most_bytes, 0
        self._field: str | None = None
        self._in_file = False
        self.fields: dict[str, str] = {}
        self.filename, self.has_file, self.ended = "", False, False

    def take(self, piece: bytes | None, stream: IO[bytes]) -> None:
        """Take the next piece; None at the end."""
        self._decoder.receive_data(piece)
        while not isinstance(event := self._decoder.next_event(), NeedData | Epilogue):
            if isinstance(event, File):
                if event.name != "file" or self.has_file:
                    name = "" if event.name is None else event.name[:80]
                    raise ApiError(400, f"{name}: expected one file, named file.", code="invalid_value")
                self.filename, self.has_file, self._field = event.filename[:200], True, None
            elif isinstance(event, Field):
                if event.name is None:
                    raise ApiError(400, "A field has no name.", code="invalid_value")
                self._field = event.name
                self.fields[event.name] = ""
            elif isinstance(event, Data):
                self._add(event.data, stream)
        self.ended = isinstance(event, Epilogue)

    def _add(self, data: bytes | bytearray, stream: IO[bytes]) -> None:
        if self._field is None:
            self._written += len(data)
            if self._written > self._most_bytes:
                message = f"The file is larger than {self._most_bytes} bytes."
                raise ApiError(413, message, code="request_too_large", param="file")
            stream.write(data)
            return
        self.fields[self._field] += data.decode("utf-8", errors="replace")
        if len(self.fields[self._field]) > _LONGEST_FIELD:
            raise ApiError(413, f"{self._field[:80]}: longer than {_LONGEST_FIELD} bytes.", code="request_too_large")
