"""Logging: one logger tree under `didact`, plain lines, written to stderr so that stdout stays for results."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from typing_extensions import override

_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
_FILE_FORMAT = "%(asctime)s %(process)d %(levelname).1s %(name)s: %(message)s"
_KEEP_TO_THEMSELVES = ("didact", "datasets", "DeepSpeed", "mlflow", "ray", "transformers")
"""Loggers that may not pass their lines on to the root."""


def get_logger(name: str) -> logging.Logger:
    """The logger of a module: `get_logger(__name__)`."""
    return logging.getLogger(name)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is now, which programs that capture output change."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure(verbose: bool = False) -> None:
    """Send didact's messages to stderr. Called by entry points only, never at import."""
    root = logging.getLogger("didact")
    if not root.handlers:
        handler = _Stderr()
        handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
        root.addHandler(handler)
        root.propagate = False
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def configure_plain(name: str) -> None:
    """Send a logger's messages to stderr as they are, for programs that read them."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(_Stderr())
        logger.propagate = False


class _Kept(logging.FileHandler):
    """Writes each record once, however many loggers hand it on; what the disk does not take is lost."""

    def __init__(self, file: Path, thread: int | None) -> None:
        """
        Args:
            file: to write to.
            thread: whose records alone are written; None for all.
        """
        super().__init__(file, encoding="utf-8", delay=True)
        self._thread = thread

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if self._thread not in (None, record.thread):
            return False
        kept_by = record.__dict__.setdefault("kept_by", set())
        again = self in kept_by
        kept_by.add(self)
        return not again and bool(super().filter(record))

    @override
    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # of a file that cannot be opened
            super().emit(record)

    @override
    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        pass


_ERRORS = _Stderr()
_ERRORS.setLevel(logging.ERROR)
_ERRORS.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))


def kept_file() -> Path | None:
    """The file that this process keeps its log in now."""
    kept = [Path(each.baseFilename) for each in logging.getLogger().handlers if isinstance(each, _Kept)]
    return kept[-1] if kept else None


@contextlib.contextmanager
def kept_in(file: Path) -> Iterator[None]:
    """Inside the block, add to `file` what didact and the libraries log in this process, and Python's warnings.

    Of libraries that show nothing of their own only errors reach the terminal meanwhile. Several processes may write to
    one file: each line is one append. In a process that keeps its log already, a thread keeps what it logs itself:
    several may be at work.
    """
    apart = kept_file() is not None and threading.current_thread() is not threading.main_thread()
    kept = _Kept(file, threading.get_ident() if apart else None)
    kept.setFormatter(logging.Formatter(_FILE_FORMAT))
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, _KEEP_TO_THEMSELVES)]
    for logger in loggers:
        logger.addHandler(kept)
    root.addHandler(_ERRORS)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(kept)
        kept.close()
        if kept_file() is None:
            logging.captureWarnings(False)
            root.removeHandler(_ERRORS)
