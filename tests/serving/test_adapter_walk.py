"""The walk of an adapter's name from a request to weights in memory: the files that whoever follows it opens.

A file is on the way when a function of it is given the name, or what was made of it, and calls one in another file.
"""

import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from fastapi.testclient import TestClient

import didact
from didact.models.adapter import load_row_adapter
from didact.registry import ModelVersion, Registry
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.engine.adapter_pool import AdapterPool
from didact.serving.engine.protocol import AdapterRef, GenerationRequest
from didact.serving.engine.row import BatchRow
from didact.serving.replica.backend import Ask
from didact.serving.replica.catalog import Catalog
from didact.tracking import default_uri
from tests.serving.conftest import open_worker

LIBRARY = Path(didact.__file__).parent
PAGE = LIBRARY.parents[1] / "docs" / "rooms.md"


class Follower:
    """Notes, while it is on and until weights are read, which functions are given the name and call another file."""

    def __init__(self) -> None:
        self.on = False
        self.given: dict[CodeType, str] = {}
        self.callers: set[CodeType] = set()
        self._files: dict[CodeType, str | None] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if not self.on or event != "call" or (here := self._file_of(frame)) is None:
            return
        caller = self._within(frame.f_back)
        if caller is not None and self._file_of(caller) != here:
            self.callers.add(caller.f_code)
        if any(_bears_the_name(value) for value in frame.f_locals.values()):
            self.given[frame.f_code] = here
        if frame.f_code is load_row_adapter.__code__:  # in a thread of its own, with a folder and no name
            self.callers.add(AdapterPool.begin.__code__)
            self.on = False

    def way(self) -> list[str]:
        """The files, in the order in which they are given the name."""
        return list(dict.fromkeys(file for code, file in self.given.items() if code in self.callers))

    def _within(self, frame: FrameType | None) -> FrameType | None:
        """The function of the library in which a call happened, or from which it came."""
        while frame is not None and self._file_of(frame) is None:
            frame = frame.f_back
        return frame

    def _file_of(self, frame: FrameType) -> str | None:
        """The file of a function of the library; None for others."""
        code = frame.f_code
        if code not in self._files:
            path = Path(code.co_filename)
            within = path.is_relative_to(LIBRARY)
            self._files[code] = path.relative_to(LIBRARY).with_suffix("").as_posix() if within else None
        return self._files[code]


def _bears_the_name(value: object) -> bool:
    if isinstance(value, str):
        return value.startswith("demo:2")
    return isinstance(value, ModelVersion | AdapterRef | Ask | GenerationRequest | BatchRow)


def test_a_name_passes_few_files_on_its_way_to_weights(adapters: list[Path], tmp_path: Path) -> None:
    registry = Registry(default_uri(tmp_path / "runs"))
    for folder in adapters[:2]:
        registry.register("demo", folder, run_id=None, tags={}, card="", alias=None)
    follow = Follower()
    threading.setprofile(follow)
    sys.setprofile(follow)
    try:
        with open_worker(registry, tmp_path / "cache") as worker:
            catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=3600)
            with TestClient(build_gateway(worker, catalog, GatewaySettings(max_new_tokens=8))) as client:
                follow.on = True
                question = {"model": "demo:2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
                answer = client.post("/v1/chat/completions", json=question)
    finally:
        threading.setprofile(None)
        sys.setprofile(None)
    assert answer.status_code == 200, answer.text
    files = follow.way()
    assert len(files) <= 10, files
    assert " -> ".join(f"`{file}`" for file in files) in " ".join(PAGE.read_text(encoding="utf-8").split())
