"""What takes long to make and is only looked at: made by one of the processes that share the tests."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder for all test processes of this run, filled by the first that asks; the others wait for it.

    A module's tests may be spread over the processes, and each has fixtures of its own.

    Args:
        factory: pytest's.
        name: of the folder, which no other one has.
        make: fills it.
    """
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    made = folder / ".made"
    with FileLock(f"{folder}.lock"):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one whose making failed
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
