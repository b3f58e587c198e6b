"""A small disk of a test's own: a real file system that can be filled and made read-only."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A mounted file system."""

    path: Path

    def fill(self, leaving: int = 0) -> None:
        """Take all but `leaving` bytes of it."""
        room = os.statvfs(self.path)
        with (self.path / "ballast").open("wb") as file:
            file.write(bytes(room.f_bavail * room.f_frsize - leaving))

    def make_room(self) -> None:
        """Give back what `fill` took."""
        (self.path / "ballast").unlink()

    def remount(self, mode: str) -> None:
        """`ro` refuses every write, `rw` takes them again. No file may be open for writing."""
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


@contextlib.contextmanager
def small_disk(path: Path, mebibytes: int = 3) -> Iterator[Disk]:
    """Mount one in memory for the time of a block; skips the test where this process may not mount."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "didact-test", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
