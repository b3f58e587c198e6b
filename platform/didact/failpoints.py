"""Faults to inject at named places, so that recovery is tested without timing.

A file `failpoint` in the run folder holds one fault a line, `PLACE[-rankR]:ACTION@N`: `step-rank1:kill@7` kills
worker 1 when it has done step 7. A fault strikes once only: a marker file records that it has.
`training.FaultInjection` says which places there are.
"""

import errno
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from didact.errors import RunError

_FILE = "failpoint"
_LINE = re.compile(r"(?P<place>[a-z_]+)(?:-rank(?P<rank>\d+))?:(?P<action>[a-z]+)@(?P<occurrence>\d+)")
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}
_VALUES = {"nan": float("nan"), "inf": float("inf")}
_ACTIONS = (*_SIGNALS, *_VALUES, "raise", "memory", "disk")


@dataclass(frozen=True, slots=True)
class Fault:
    """One armed fault."""

    place: str
    rank: int
    action: str
    occurrence: int
    marker: Path
    """Exists once the fault has struck."""


@dataclass(frozen=True, slots=True)
class Failpoints:
    """The faults armed in a run folder."""

    faults: tuple[Fault, ...]

    def strike(self, place: str, rank: int, occurrence: int) -> float | None:
        """Fail here if a fault names this place, worker and occurrence and has not struck yet.

        Args:
            place: name of the place.
            rank: the worker that passes.
            occurrence: which pass this is, such as a step number.

        Returns:
            What to multiply the place's numbers with, for the actions `nan` and `inf`; else None.

        Raises:
            RuntimeError: for the action `raise`, as a mistake in a program would.
            MemoryError: for `memory`.
            OSError: for `disk`, that it is full.
        """
        for fault in self.faults:
            if (fault.place, fault.rank, fault.occurrence) == (place, rank, occurrence) and not fault.marker.exists():
                fault.marker.touch()
                return _act(fault)
        return None


def read_failpoints(folder: Path) -> Failpoints | None:
    """The faults armed in a run folder; None in every real run.

    Raises:
        RunError: a line that is not `PLACE[-rankR]:ACTION@N`.
    """
    file = folder / _FILE
    if not file.exists():
        return None
    lines = file.read_text(encoding="utf-8").split()
    return Failpoints(tuple(_fault(line, file, number) for number, line in enumerate(lines, start=1)))


def _fault(line: str, file: Path, number: int) -> Fault:
    found = _LINE.fullmatch(line)
    if found is None or found["action"] not in _ACTIONS:
        raise RunError(f"{file} holds {line!r}; expected PLACE[-rankR]:ACTION@N with one of {', '.join(_ACTIONS)}")
    marker = file.with_name(f"{_FILE}-{number}-struck")
    return Fault(found["place"], int(found["rank"] or 0), found["action"], int(found["occurrence"]), marker)


def _act(fault: Fault) -> float | None:
    if fault.action in _VALUES:
        return _VALUES[fault.action]
    where = f"failpoint {fault.place} struck at {fault.occurrence}"
    if fault.action == "memory":
        raise MemoryError(where)
    if fault.action == "disk":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({where})")
    if fault.action == "raise":
        raise RuntimeError(where)
    os.kill(os.getpid(), _SIGNALS[fault.action])
    return None
