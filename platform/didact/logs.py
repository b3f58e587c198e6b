"""Logging: one logger tree under `didact`, plain lines, written to stderr so that stdout stays for results."""

import logging
import sys

_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


def get_logger(name: str) -> logging.Logger:
    """The logger of a module: `get_logger(__name__)`."""
    return logging.getLogger(name)


def configure(verbose: bool = False) -> None:
    """Send didact's messages to stderr. Called by entry points only, never at import."""
    root = logging.getLogger("didact")
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, datefmt="%H:%M:%S"))
        root.addHandler(handler)
        root.propagate = False
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports every optional kernel it lacks
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
