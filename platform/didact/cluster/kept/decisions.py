"""Measurements of a run that wait until somebody has decided whether it goes on."""

import threading
from collections.abc import Callable
from typing import Any

from didact.errors import RunError


class RunLeft(RunError):
    """A run was ended where it is, by whoever decided about it."""


class Decisions:
    """Between a run that measures and who decides about it, which are in threads of their own."""

    def __init__(self, changed: threading.Condition | None = None) -> None:
        """`changed` is told when anything becomes known; default: one of its own."""
        self._changed = changed or threading.Condition()
        self._measurement: dict[str, Any] | None = None
        self._is_taken = False
        self.is_over = False
        """Nothing more is measured, or nobody asks any more."""

    def tell(self, measurement: dict[str, Any], *, is_ended: Callable[[], bool] = lambda: False) -> None:
        """Hand a measurement on; returns when the next one is asked for, or there is nobody left to wait for.

        Args:
            measurement: metrics of a step.
            is_ended: whether the run was ended meanwhile; looked at whenever anything has changed.
        """

        def is_decided() -> bool:
            return self.is_over or is_ended() or (self._measurement is None and not self._is_taken)

        with self._changed:
            self._measurement = measurement
            self._changed.notify_all()
            self._changed.wait_for(is_decided)

    def ask(self) -> dict[str, Any] | None:
        """Let the run go on and wait for its next measurement; None once it is over."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.is_over or self._measurement is not None)
            told, self._measurement = self._measurement, None
            self._is_taken = True
            return None if self.is_over else told

    def end(self) -> None:
        """Nothing more is to be asked or decided."""
        with self._changed:
            self.is_over = True
            self._changed.notify_all()
