"""Named places where a test can make a process fail, so that recovery is tested without timing.

`DIDACT_FAILPOINT="step:kill@7"` kills the process the 7th time it passes `failpoint("step")`. Kills and raises happen in
one attempt only: a marker file in the run folder records that the fault has struck.
"""

import os
import signal
from pathlib import Path

from didact import env
from didact.errors import RunError


def failpoint(point: str, occurrence: int, folder: Path) -> None:
    """Strike here if the user's failpoint names this point and occurrence, and it has not struck yet.

    Args:
        point: name of the place.
        occurrence: which pass this is (a step number, a rank): compared with the number after `@`.
        folder: where the marker is kept.

    Raises:
        RunError: for the action `raise`, or for an action that does not exist.
    """
    setting = env.failpoint()
    if setting is None or setting.split(":")[0] != point:
        return
    action, _, wanted = setting.split(":")[1].partition("@")
    marker = folder / f"failpoint-{point}-{action}"
    if int(wanted or 1) != occurrence or marker.exists():
        return
    marker.touch()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "raise":
        raise RunError(f"failpoint {point} struck at {occurrence}")
    raise RunError(f"DIDACT_FAILPOINT: unknown action {action!r}; expected kill or raise")
