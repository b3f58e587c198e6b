"""A fault to inject at a named place, so that recovery is tested without timing.

A file `failpoint` in the run folder, such as `step-rank1:kill@7`, kills worker 1 when it has done step 7. A fault
strikes once only: a marker file records that it has.
"""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from didact.errors import RunError

_FILE = "failpoint"


@dataclass(frozen=True, slots=True)
class Failpoint:
    """One armed fault."""

    folder: Path
    point: str
    action: str
    occurrence: int

    def strike(self, point: str, occurrence: int) -> None:
        """Fail here if this is the place and the occurrence, and the fault has not struck yet.

        Args:
            point: name of the place.
            occurrence: which pass this is, such as a step number.

        Raises:
            RunError: for the action `raise`.
        """
        marker = self.folder / f"failpoint-{point}-{self.action}"
        if (point, occurrence) != (self.point, self.occurrence) or marker.exists():
            return
        marker.touch()
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise RunError(f"failpoint {point} struck at {occurrence}")


def read_failpoint(folder: Path) -> Failpoint | None:
    """The fault armed in a run folder; None in every real run.

    Raises:
        RunError: the file does not say `PLACE:kill@N` or `PLACE:raise@N`.
    """
    file = folder / _FILE
    if not file.exists():
        return None
    text = file.read_text(encoding="utf-8").strip()
    place, _, fault = text.partition(":")
    action, _, occurrence = fault.partition("@")
    if action not in ("kill", "raise") or not occurrence.isdigit():
        raise RunError(f"{file} holds {text!r}; expected PLACE:kill@N or PLACE:raise@N")
    return Failpoint(folder, place, action, int(occurrence))
