"""Logging: one logger tree under `didact`, plain lines, written to stderr so that stdout stays for results."""

import logging
import sys
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


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
