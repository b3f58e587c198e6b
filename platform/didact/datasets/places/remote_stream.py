"""A file on the web or in object storage, read without a copy: from any byte on, and on after a broken connection."""

import io
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from didact.addresses import check_address, check_host
from didact.errors import DataError
from didact.logs import get_logger

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

WAITS = (0.5, 2.0, 8.0)
"""Seconds before each further try."""
_BUFFER_BYTES = 1 << 20
_SKIP_BYTES = 1 << 20
_SILENCE_SECONDS = 60
_FAILURES = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("httpx", "HTTPError"),
    ("tarfile", "TarError"),
    ("zipfile", "BadZipFile"),
)
# What the many kinds of server call the mark by which one content is told from another.
_MARKS = (
    *("ETag", "etag", "Content-MD5", "md5Hash", "checksum", "blob_id", "generation", "VersionId"),
    *("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)
_PASSING = frozenset({408, 425, 429})
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}
_BY_NAME = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "adl", "oss", "oci", "tos", "hf", "github", "gist"}) | {
    "file",
    "local",
    "memory",
}
"""Whose URLs name a bucket, a repository or a place on this machine: where it lies is the environment's to say."""
_LEADING_ON = frozenset({"reference", "generic", "dask"})
"""Whose files name further addresses, which are asked past every check."""
_Result = TypeVar("_Result")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server, as the server describes it. Stands where readers take a path, for reading only."""

    url: str
    size: int | None
    """Bytes; None where the server does not say."""
    version: tuple[tuple[str, str], ...]
    """Marks that change with the content, such as ETag; empty where the server gives none."""

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Name of the file, without a query."""
        path = urlsplit(self.url).path if is_web(self.url) else self.url
        return unquote(PurePosixPath(path).name) or "data"

    @property
    def suffix(self) -> str:
        """Ending of the name."""
        return PurePosixPath(self.name).suffix

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Its bytes; reading raises `DataError` when they cannot be had, or are others than described here."""
        return cast(BinaryIO, io.BufferedReader(_Stream(self), _BUFFER_BYTES))


SourceFile = Path | RemoteFile
"""A file of a source: on this machine, or read where it is."""


def is_web(url: str) -> bool:
    """Whether a URL is one of the web's, where `?` begins a query."""
    return url.startswith(("http://", "https://"))


def filesystem(url: str) -> tuple["AbstractFileSystem", str]:
    """The library for a URL, and the URL as that library writes it.

    Raises:
        DataError: there is none, it is not installed, or the URL leads to a link-local or metadata address.
    """
    import fsspec

    options: dict[str, Any] = {}
    for link in url.split("::"):  # as in `zip://rows.jsonl::https://host/rows.zip`
        scheme = link.partition("://")[0]
        if scheme in _LEADING_ON:
            raise DataError(f"{url}: found {scheme}://, whose files name addresses of their own; expected one of data")
        if is_web(link):
            options[scheme] = _web_options()
        elif "://" in link and scheme not in _BY_NAME:
            _check_machine(url, link)
    try:
        # An archive is opened here already.
        opened = patiently(url, lambda: fsspec.url_to_fs(url, **options))
        return cast("tuple[AbstractFileSystem, str]", opened)
    except ImportError as error:
        raise DataError(f"{url}: {error}; pip install didact[cloud] brings what S3 and GCS need") from error
    except ValueError as error:
        raise DataError(f"{url}: {error}; change the source's path in data.sources") from error


def _web_options() -> dict[str, Any]:
    import aiohttp

    # The default gives up on a whole file after five minutes, however well it flows.
    limit = aiohttp.ClientTimeout(total=None, sock_connect=_SILENCE_SECONDS, sock_read=_SILENCE_SECONDS)
    return {"client_kwargs": {"timeout": limit}, "get_client": _checked_client}


def _check_machine(url: str, link: str) -> None:
    try:
        check_host(urlsplit(link).hostname or "")
    except ValueError as error:
        raise DataError(f"{url} cannot be read: {error}") from None


async def _checked_client(**settings: Any) -> Any:
    """A client that looks at each address it connects to, after redirects too."""
    import aiohttp

    def checked_socket(found: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = found
        check_address(str(address[0]))
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=checked_socket), **settings)


def describe(url: str) -> RemoteFile:
    """Ask the server what it holds.

    Raises:
        DataError: it does not answer, or has no such file.
    """
    files, path = filesystem(url)

    def ask() -> dict[str, Any]:
        files.invalidate_cache()
        return cast("dict[str, Any]", files.info(path))

    info = patiently(url, ask)
    if info.get("type") == "directory":
        raise DataError(f"{url} is a folder; name its files, as in {url.rstrip('/')}/*.jsonl")
    version = tuple((mark, str(info[mark])) for mark in _MARKS if info.get(mark) is not None)
    return RemoteFile(url, info.get("size"), version)


def check_same(file: RemoteFile) -> None:
    """Ask the server once more.

    Raises:
        DataError: the file is another one now; or as `describe`.
    """
    now = describe(file.url)
    if now != file:
        raise DataError(
            f"{file.url} has changed while it was being read: {now.version or now.size}, before "
            f"{file.version or file.size}; start again to use what it holds now"
        )


def patiently(url: str, ask: Callable[[], _Result]) -> _Result:
    """Call something that may fail for a while, a few times.

    Raises:
        DataError: it went on failing, or failed in a way that will not pass; with URL and cause.
    """
    for wait in (*WAITS, None):
        try:
            return ask()
        except failures() as error:
            cause = error.__cause__ or error
            if wait is None or _will_not_pass(error):
                advice = _advice(url, error)
                raise DataError(f"{url} cannot be read: {type(cause).__name__}: {cause}{advice}") from error
            _log.warning("%s: %s: %s; trying again in %s seconds", url, type(cause).__name__, cause, wait)
            time.sleep(wait)
    raise AssertionError("unreachable: the last try returns or raises")


def failures() -> tuple[type[Exception], ...]:
    """What the libraries beneath raise when something cannot be had; one that nobody has loaded raises nothing."""
    loaded = [(sys.modules[module], name) for module, name in _FAILURES if module in sys.modules]
    return (OSError, EOFError, *(getattr(module, name) for module, name in loaded))


def _will_not_pass(error: Exception) -> bool:
    cause = error.__cause__ or error
    status = _status(cause)
    if status is not None:
        return 400 <= status < 500 and status not in _PASSING
    if _is_refused(error):
        return True
    # The web's library calls a server that does not answer "not found" as well.
    unanswered = type(cause).__module__.startswith("aiohttp")
    return isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError) and not unanswered


def _is_refused(error: Exception) -> bool:
    cause = error.__cause__ or error
    if _status(cause) in (401, 403):
        return True
    # Google's library tells a refusal only in words, and Amazon's has several errors for keys that are not there.
    told = isinstance(error, PermissionError) or str(error).startswith("Forbidden: ")
    return told or "Credential" in type(cause).__name__ or type(cause).__module__.startswith("google.auth")


def _status(cause: BaseException) -> int | None:
    # The web's library has a `code` too: 400 for an answer that broke off.
    status = getattr(cause, "code" if type(cause).__module__.startswith("gcsfs") else "status", None)
    return status if isinstance(status, int) else None


def _advice(url: str, error: Exception) -> str:
    names = _CREDENTIALS.get(urlsplit(url).scheme)
    return f"; for credentials that may read it set {names}" if names and _is_refused(error) else ""


class _Stream(io.RawIOBase):
    """The bytes of a remote file. A break is mended by opening it again where it broke."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._position = 0
        self._source: Any = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.size is not None

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if self._file.size is None:
            raise io.UnsupportedOperation(f"{self._file.url}: its server does not say how long it is")
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset != self._position:
            self._position = start + offset
            self._drop()
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = patiently(self._file.url, lambda: self._read(len(buffer)))
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, count: int) -> bytes:
        size = self._file.size
        if size is not None and self._position >= size:
            return b""
        try:
            if self._source is None:
                self._source = self._opened()
            piece: bytes = self._source.read(count)
            if not piece and size is not None:
                raise EOFError(f"it ended after {self._position:,} of {size:,} bytes")
            return piece
        except failures():
            self._drop()
            raise

    def _opened(self) -> Any:
        check_same(self._file)
        files, path = filesystem(self._file.url)
        if not is_web(self._file.url):
            source = files.open(path, "rb")
            source.seek(self._position)
            return source
        headers = {"Accept-Encoding": "identity"}
        if self._position:
            headers["Range"] = f"bytes={self._position}-"
        # A size that is given is not asked for once more, and blocks of none make one request of the whole.
        source = files.open(path, "rb", block_size=0, size=self._file.size or 1, headers=headers)
        left = self._position if source.r.status != 206 else 0
        while left and (skipped := source.read(min(left, _SKIP_BYTES))):
            left -= len(skipped)
        return source

    def _drop(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None
