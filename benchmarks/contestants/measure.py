"""What every contestant reports, and its clock. Standard library only: it runs in each contestant's environment."""

import json
import os
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

    def report(self, folder: Path, name: str, losses: list[float]) -> None:
        """Write tokens and seconds after the warm-up, peak memory and all losses to `NAME-RANK.json` in `folder`."""
        value = {
            "tokens": sum(self._tokens[self._warm : len(self._walls) - 1]),
            "seconds": self._walls[-1] - self._walls[self._warm],
            "cpu_seconds": self._cpus[-1] - self._cpus[self._warm],
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
            "losses": losses,
        }
        (folder / f"{name}-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(value))
