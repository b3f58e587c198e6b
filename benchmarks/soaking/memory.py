"""Memory of a server's processes over time, and whether it grows."""

import math
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_SECONDS = 10.0
_KINDS = {
    "ray::ServeReplica:didact:ModelReplica": "ModelReplica",
    "ray::ServeReplica:didact:Gateway": "Gateway",
    "ray::ProxyActor": "proxy",
    "ray::ServeController": "controller",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at one process."""

    second: float
    """Since the soak began."""
    mib: float
    """What it has written itself; what it shares with others moves as these come and go."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How memory of a kind of process moved."""

    processes: int
    """How many were fitted."""
    slope: float
    """MiB an hour, the same for all of them."""
    error: float
    """Two standard errors of it."""


def kind_of(process: psutil.Process, driver: int) -> str | None:
    """What a process of the server is; None for Ray's own helpers and processes that have just ended."""
    if process.pid == driver:
        return "didact serve"
    try:
        words = process.cmdline()
        if not words:
            return None
        found = next((kind for begin, kind in _KINDS.items() if words[0].startswith(begin)), None)
        return found or {"raylet": "raylet", "gcs_server": "gcs_server"}.get(process.name())
    except psutil.Error:
        return None


def processes(driver: int) -> Iterator[tuple[str, psutil.Process]]:
    """All processes of the server that have a kind."""
    try:
        root = psutil.Process(driver)
        found = [root, *root.children(recursive=True)]
    except psutil.Error:
        return
    for process in found:
        if (kind := kind_of(process, driver)) is not None:
            yield kind, process


def _own_mib(pid: int) -> float | None:
    """What a process has written itself; None where it has ended."""
    try:
        found = re.search(r"^Anonymous:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) / 1024 if found else None


class Watch(threading.Thread):
    """Looks at all processes every ten seconds."""

    def __init__(self, driver: int) -> None:
        super().__init__(name="memory", daemon=True)
        self._driver, self._began, self._ended = driver, time.monotonic(), threading.Event()
        self.seen: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        """Kind and number of a process -> what it had."""

    def run(self) -> None:
        """Until `stop`."""
        while True:
            self._look()
            if self._ended.wait(EVERY_SECONDS):
                self._look()
                return

    def stop(self) -> None:
        """Look once more, and end."""
        self._ended.set()
        self.join()

    def _look(self) -> None:
        for kind, process in processes(self._driver):
            if (mib := _own_mib(process.pid)) is not None:
                self.seen[kind, process.pid].append(Sample(time.monotonic() - self._began, mib))

    def at(self, kind: str, second: float) -> float | None:
        """MiB of the processes of a kind at a time, the mean of those that were there."""
        near = [min(samples, key=lambda each: abs(each.second - second)) for samples in self._of(kind)]
        there = [each.mib for each in near if abs(each.second - second) <= 1.5 * EVERY_SECONDS]
        return sum(there) / len(there) if there else None

    def trend(self, kind: str, warm_seconds: float) -> Trend | None:
        """The slope over what processes had once they were warm, each with a height of its own.

        Args:
            kind: of process.
            warm_seconds: left out at the beginning of each process.
        """
        products = squares = residual = 0.0
        count = fitted = 0
        warm = [
            [each for each in samples if each.second >= samples[0].second + warm_seconds] for samples in self._of(kind)
        ]
        centred = []
        for samples in (each for each in warm if len(each) > 2):
            second, mib = (
                sum(values) / len(samples) for values in zip(*((s.second, s.mib) for s in samples), strict=True)
            )
            centred += [(each.second - second, each.mib - mib) for each in samples]
            count, fitted = count + len(samples), fitted + 1
        products = sum(second * mib for second, mib in centred)
        squares = sum(second * second for second, _ in centred)
        if not fitted or count <= fitted + 1:
            return None
        slope = products / squares
        residual = sum((mib - slope * second) ** 2 for second, mib in centred)
        error = math.sqrt(residual / (count - fitted - 1) / squares)
        return Trend(fitted, 3600 * slope, 2 * 3600 * error)

    def lives(self, kind: str) -> list[list[Sample]]:
        """What each process of a kind had, the first to come first."""
        return sorted(self._of(kind), key=lambda samples: samples[0].second)

    def kinds(self) -> list[str]:
        """Every kind that was seen, the largest first."""
        return sorted(
            {kind for kind, _ in self.seen}, key=lambda kind: -max(s.mib for each in self._of(kind) for s in each)
        )

    def _of(self, kind: str) -> list[list[Sample]]:
        return [samples for (found, _), samples in self.seen.items() if found == kind]
