"""Whether a worker has been asked to stop: by SIGTERM, by its node being drained, or by the driver."""

import math
import signal
import threading
import time
from types import FrameType
from typing import Any

import ray
from ray.train.v2._internal.execution.context import get_train_context

from didact.runs import Run

_TERMINATED = threading.Event()
_LOOK_SECONDS = 5.0


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
        ray.get(worker.execute.remote(listen))

    def __call__(self) -> bool:
        """Whether to save a checkpoint and stop."""
        asked = _TERMINATED.is_set() or self._notice.preemption_info is not None
        return asked or (self._file is not None and self._file.exists())


class KeptStopRequest:
    """The same on a worker outside Ray Train: SIGTERM, where `listen` was called, and the draining of its node."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
        self._looked = -math.inf
        self._is_drained = False

    def __call__(self) -> bool:
        """Whether to save a checkpoint and stop."""
        now = time.monotonic()
        if self._node is not None and now > self._looked + _LOOK_SECONDS:
            self._looked = now
            # As Ray Train's watcher asks.
            self._is_drained = self._node in ray._private.state.state.get_draining_nodes()
        return self._is_drained or _TERMINATED.is_set()


def listen() -> None:
    """Have SIGTERM ask this process to stop; a second one ends it at once. On its main thread."""
    before = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        if _TERMINATED.is_set() and callable(before):  # asked a second time: at once
            before(number, frame)
        _TERMINATED.set()

    signal.signal(signal.SIGTERM, on_sigterm)
