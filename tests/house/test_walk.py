"""The walk of a row from its file to a `Dataset`: how many files whoever follows it opens, and how often again.

Counted over the functions of `didact.datasets` in the order in which they are first entered. A file is on the way when
one of its functions calls one in another file; the others only answer.
"""

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from didact.datasets import Dataset, load_dataset
from didact.spec import SourceSpec

ROOM = Path(__file__).resolve().parents[2] / "platform" / "didact" / "datasets"
PAGE = ROOM.parents[2] / "docs" / "rooms.md"


def walk(work: Callable[[], Dataset]) -> tuple[list[str], set[str]]:
    """The files in the order of the walk, and those of them that are on the way."""
    seen: set[CodeType] = set()
    steps: list[str] = []
    callers: set[str] = set()

    def file_of(frame: FrameType | None) -> str | None:
        while frame is not None and not frame.f_code.co_filename.startswith(str(ROOM)):
            frame = frame.f_back
        return frame and Path(frame.f_code.co_filename).relative_to(ROOM).with_suffix("").as_posix()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(str(ROOM)) or frame.f_code.co_name[0] == "<":
            return
        here, caller = file_of(frame), file_of(frame.f_back)
        assert here is not None
        if caller not in (None, here):
            callers.add(str(caller))
        if frame.f_code not in seen:
            seen.add(frame.f_code)
            steps.append(here)

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return steps, callers


def counted(steps: list[str]) -> tuple[list[str], int]:
    """The files in the order in which they are first met, and how often the walk comes back to one of them."""
    visits = [file for file, _ in groupby(steps)]
    files = list(dict.fromkeys(visits))
    return files, len(visits) - len(files)


def test_a_row_passes_few_files_and_comes_back_to_few(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"instruction": "Add 2 and 3.", "input": "", "output": "5"}\n')
    source = SourceSpec(name="s", path=str(path))
    steps, callers = walk(lambda: load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None))
    files, returns = counted([step for step in steps if step in callers])
    assert len(files) <= 12 and returns <= 6, files
    assert " -> ".join(f"`{file}`" for file in files) in " ".join(PAGE.read_text(encoding="utf-8").split())
