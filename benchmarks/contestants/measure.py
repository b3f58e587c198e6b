"""What every contestant reports, and its clock. Standard library only: it runs in each contestant's environment."""

import json
import resource
import time
from pathlib import Path


class Clock:
    """Times steps; the first `warm` of them fill caches and are left out of the rate."""

    def __init__(self, tokens: list[int], warm: int) -> None:
        self._tokens, self._warm = tokens, warm
        self._walls: list[float] = []
        self._cpus: list[float] = []

    def tick(self) -> None:
        """Call before the first step and after each."""
        self._walls.append(time.monotonic())
        self._cpus.append(time.process_time())

    def report(self, file: Path, losses: list[float]) -> None:
        """Write rates over the steps after the warm-up, peak memory of the process and the losses of all steps."""
        measured = sum(self._tokens[self._warm : len(self._walls) - 1])
        value = {
            "tokens_per_second": measured / (self._walls[-1] - self._walls[self._warm]),
            "tokens_per_cpu_second": measured / (self._cpus[-1] - self._cpus[self._warm]),
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
            "losses": losses,
        }
        file.write_text(json.dumps(value))
