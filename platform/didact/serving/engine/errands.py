"""What others ask of the step thread beside answers; done between two rounds of generation."""

from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from didact.serving.engine.adapter_pool import AdapterPool
from didact.serving.engine.protocol import AdapterRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Errand:
    adapter: AdapterRef | None
    function: Callable[[Any], Any] | None
    """None where it is enough that the adapter is in memory."""
    future: "Future[Any]"


class Errands:
    """Preloads and borrowed models, in the order they came. Only the step thread calls `run`."""

    def __init__(self, pool: AdapterPool) -> None:
        self._pool = pool
        self._queue: deque[_Errand] = deque()
        self.holds_line = False
        """The next borrower waits until running rows give an adapter place back, so no new rows should take it."""

    def __bool__(self) -> bool:
        return bool(self._queue)

    def any_ready(self) -> bool:
        """Whether one could be done now; has the adapters of the others read."""
        return any([self._is_ready(errand) for errand in list(self._queue)])

    @property
    def version_ids(self) -> set[str | None]:
        """Adapter versions that are asked for."""
        return {errand.adapter.version_id for errand in list(self._queue) if errand.adapter}

    def add(self, adapter: AdapterRef | None, function: Callable[[Any], T] | None) -> "Future[T]":
        """Queue a function of the model with the adapter in force, or with None only have the adapter loaded."""
        errand = _Errand(adapter, function, Future())
        self._queue.append(errand)
        return errand.future

    def run(self, pinned: Collection[str | None]) -> None:
        """Serve preloads up to the next borrower, and that one.

        Args:
            pinned: adapter versions that running rows need.
        """
        for errand in [each for each in list(self._queue) if self._is_ready(each)]:
            version_id = errand.adapter.version_id if errand.adapter else None
            can_begin = self._pool.can_take(version_id, pinned)
            self.holds_line = errand.function is not None and not can_begin and not errand.future.cancelled()
            if self.holds_line:
                return
            self._queue.remove(errand)
            if errand.future.set_running_or_notify_cancel():
                self._do(errand, can_begin, pinned)
            if errand.function is not None:
                return

    def fail_all(self, reason: Exception) -> None:
        """Nothing more is done."""
        while self._queue:
            future = self._queue.popleft().future
            if future.set_running_or_notify_cancel():
                future.set_exception(reason)

    def _do(self, errand: _Errand, can_begin: bool, pinned: Collection[str | None]) -> None:
        result = None
        try:
            if errand.adapter is not None and can_begin:
                self._pool.ensure(errand.adapter, pinned)
            if errand.function is not None:
                with self._pool.alone(errand.adapter.version_id if errand.adapter else None, pinned) as model:
                    result = errand.function(model)
        except Exception as error:  # noqa: BLE001 - raised where somebody waits for it
            errand.future.set_exception(error)
        else:
            errand.future.set_result(result)

    def _is_ready(self, errand: _Errand) -> bool:
        if errand.adapter is None:
            return True
        self._pool.begin(errand.adapter)
        return self._pool.is_ready(errand.adapter.version_id)
