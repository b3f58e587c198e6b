"""Whether a worker has been asked to stop: by SIGTERM, by its node being drained, or by the driver."""

import signal
import threading
from types import FrameType
from typing import Any

import ray
from ray.train.v2._internal.execution.context import get_train_context

from didact.runs import Run

_TERMINATED = threading.Event()


class StopRequest:
    """Asked by the loop in every step, so it only looks at what lies at hand."""

    def __init__(self, run: Run, rank: int) -> None:
        """Listens for SIGTERM from now on. Only on a Ray Train worker."""
        # The public `get_preemption_info` is a barrier over all workers; the loop has one already, so this worker's own
        # notice is enough.
        self._notice = get_train_context().preemption_context
        self._file = run.stop_request if rank == 0 else None
        # Signals are taken by a process's main thread, which in a worker serves the actor while training has another.
        worker: Any = ray.get_runtime_context().current_actor
        ray.get(worker.execute.remote(_listen))

    def __call__(self) -> bool:
        """Whether to save a checkpoint and stop."""
        asked = _TERMINATED.is_set() or self._notice.preemption_info is not None
        return asked or (self._file is not None and self._file.exists())


def _listen() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if _TERMINATED.is_set() and callable(before):  # asked a second time: at once
            before(number, frame)
        _TERMINATED.set()

    signal.signal(signal.SIGTERM, on_sigterm)
