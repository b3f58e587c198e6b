"""Label values of metrics, as many as a limit allows."""

import threading

OTHER = "other"


class CappedLabels:
    """Keeps label values as they are up to a number of different ones; those that come later are told as `other`.

    Every value makes series that Prometheus keeps for weeks, and clients choose the values.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[tuple[str, ...]] = set()
        self._lock = threading.Lock()

    def of(self, *values: str) -> tuple[str, ...]:
        """The values to write for these."""
        with self._lock:
            if values not in self._known:
                if len(self._known) >= self._most:
                    return (OTHER,) * len(values)
                self._known.add(values)
        return values
