"""Which adapter versions vLLM has in memory, and who uses them.

vLLM's own cache of adapters drops the least recently used, whether or not a request that waits needs it, and reads it
from disk again between two steps; a file that is gone by then ends its whole engine. So it is told of each version
here: checked first, loaded before its requests are sent, and unloaded only when none of them is left.
"""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from didact.errors import AdapterError
from didact.logs import get_logger
from didact.serving.engine.protocol import AdapterRef

_log = get_logger(__name__)
_READERS = 4
FIRST_ID = 1_000_000
"""Numbers below are vLLM's own, which warms up with some from 1, and the proof's."""

Waiter = Callable[[int | Exception], None]
"""Gets the version's number in vLLM, or why it cannot be used."""


@dataclass(slots=True)
class _Held:
    number: int
    pins: int = 0
    leaving: bool = False
    """Takes no more requests, so that a version which waits gets its place."""


@dataclass(slots=True)
class _Wanted:
    adapter: AdapterRef
    waiters: list[Waiter] = field(default_factory=list)
    checked: bool = False
    loading: bool = False


class VllmAdapters:
    """Places for adapter versions in vLLM.

    Args:
        places: versions in memory, apart from those on their way in or out.
        check: raises AdapterError for a version that cannot be served. Called on threads of this object.
        load: has vLLM load a version under a number; calls back with None, or what is wrong with it.
        unload: has vLLM forget a number.
    """

    def __init__(
        self,
        places: int,
        check: Callable[[AdapterRef], None],
        load: Callable[[int, AdapterRef, Callable[[Exception | None], None]], None],
        unload: Callable[[int], None],
    ) -> None:
        self._places = places
        self._check, self._load, self._unload = check, load, unload
        self._lock = threading.RLock()
        self._held: OrderedDict[str, _Held] = OrderedDict()
        """Least recently used first."""
        self._wanted: OrderedDict[str, _Wanted] = OrderedDict()
        self._numbers = itertools.count(FIRST_ID)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="vllm-adapters")
        self._closed: Exception | None = None
        self.loads = self.evictions = 0

    @property
    def version_ids(self) -> tuple[str, ...]:
        """Versions in memory, least recently used first."""
        with self._lock:
            return tuple(self._held)

    def acquire(self, adapter: AdapterRef, waiter: Waiter) -> None:
        """Have `waiter` called once a version is in memory, where it stays until `release`."""
        with self._lock:
            if self._closed is not None:
                return waiter(self._closed)
            held = self._held.get(adapter.version_id)
            if held is not None and not held.leaving:
                return self._pin(adapter.version_id, [waiter])
            wanted = self._wanted.get(adapter.version_id)
            if wanted is None:
                wanted = self._wanted[adapter.version_id] = _Wanted(adapter)
                self._readers.submit(self._examine, wanted)
            wanted.waiters.append(waiter)
        return None

    def release(self, version_id: str) -> None:
        """A request that had acquired the version is over."""
        with self._lock:
            self._held[version_id].pins -= 1
            self._place()

    def close(self, error: Exception) -> None:
        """Fail all who wait, and all who will."""
        with self._lock:
            self._closed = error
            waiting = [waiter for wanted in self._wanted.values() for waiter in wanted.waiters]
            self._wanted.clear()
        self._readers.shutdown(wait=False, cancel_futures=True)
        for waiter in waiting:
            waiter(error)

    def _examine(self, wanted: _Wanted) -> None:
        try:
            self._check(wanted.adapter)
        except Exception as error:  # noqa: BLE001 - told to those who asked
            self._refuse(wanted, error if isinstance(error, AdapterError) else AdapterError(_unexpected(error)))
        else:
            with self._lock:
                wanted.checked = True
                self._place()

    def _refuse(self, wanted: _Wanted, error: Exception) -> None:
        with self._lock:
            self._wanted.pop(wanted.adapter.version_id, None)
            waiters, wanted.waiters = wanted.waiters, []
        for waiter in waiters:
            waiter(error)

    def _place(self) -> None:
        """Give places to versions that wait for one, as far as there are any."""
        loading = sum(wanted.loading for wanted in self._wanted.values())
        waiting = [each for each in self._wanted.values() if each.checked and not each.loading]
        for wanted in waiting:
            version_id = wanted.adapter.version_id
            if version_id in self._held:  # told to leave, and wanted again before it had left
                if not any(each is not wanted for each in waiting):
                    self._held[version_id].leaving = False
                    del self._wanted[version_id]
                    self._pin(version_id, wanted.waiters)
                    continue
                if self._held[version_id].pins:
                    continue
            if len(self._held) + loading < self._places:
                victim = None
            elif (victim := self._idle()) is None:
                self._ask_one_to_leave()
                return
            loading += 1
            self._begin(wanted, victim)

    def _idle(self) -> str | None:
        idle = [name for name, held in self._held.items() if held.pins == 0]
        return next((name for name in idle if self._held[name].leaving), idle[0] if idle else None)

    def _ask_one_to_leave(self) -> None:
        """Where every place is in use, the version that has had its own for longest takes no more requests."""
        if self._held and not any(held.leaving for held in self._held.values()):
            min(self._held.values(), key=lambda held: held.number).leaving = True

    def _begin(self, wanted: _Wanted, victim: str | None) -> None:
        """Load a version; `victim` leaves once that has succeeded, and stays where it fails."""
        wanted.loading = True
        left = None if victim is None else (victim, self._held.pop(victim))
        number = next(self._numbers)

        def loaded(error: Exception | None) -> None:
            with self._lock:
                wanted.loading = False
                if error is not None:
                    if left is not None:
                        self._held[left[0]] = left[1]
                        self._held.move_to_end(left[0], last=False)
                    self._refuse(wanted, error)
                else:
                    self._arrive(wanted, number, left)
                self._place()

        self._load(number, wanted.adapter, loaded)

    def _arrive(self, wanted: _Wanted, number: int, left: "tuple[str, _Held] | None") -> None:
        version_id = wanted.adapter.version_id
        self.loads += 1
        if left is not None:
            self.evictions += 1
            self._unload(left[1].number)
        if self._wanted.pop(version_id, None) is None:  # closed meanwhile
            return
        self._held[version_id] = _Held(number)
        self._pin(version_id, wanted.waiters)

    def _pin(self, version_id: str, waiters: list[Waiter]) -> None:
        held = self._held[version_id]
        self._held.move_to_end(version_id)
        held.pins += len(waiters)
        for waiter in waiters:
            waiter(held.number)


def _unexpected(error: Exception) -> str:
    _log.warning("an adapter could not be checked", exc_info=error)
    return f"the adapter could not be checked ({type(error).__name__}: {error})"
