"""What may happen to a file on a disk."""

from collections.abc import Callable
from pathlib import Path


def flip(path: Path) -> None:
    """Turn one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "bit flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
}
"""Name -> does it to a file."""
