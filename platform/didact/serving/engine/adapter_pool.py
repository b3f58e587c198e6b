"""Which adapter versions are in memory, and where their weights lie for the rows of a batch."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models import AdapterHost
from didact.models.adapter import RowAdapter, RowSlots, load_row_adapter
from didact.serving.engine.protocol import AdapterRef

_log = get_logger(__name__)
_READERS = 2


class AdapterPool:
    """Loads versions on first use and drops the least recently used one beyond `max_adapters`.

    A version is verified and read by a thread of its own, so a slow disk or a large file holds up nobody else, and
    before another is dropped, so asking for a damaged one costs nobody their place.

    Rows of most LoRA and IA3 adapters and of the base share one batch; an adapter that needs the whole model has a
    batch of its own (`group`). Where rows of this base cannot be told apart, every adapter has.
    """

    def __init__(self, host: AdapterHost, max_adapters: int, num_slots: int, on_read: Callable[[], None]) -> None:
        """Start the reading threads.

        Args:
            host: the base, and adapters that need the whole of it.
            max_adapters: versions in memory.
            num_slots: versions that rows of the shared batch may have at the same time.
            on_read: called by a reading thread when a version was read, or could not be.
        """
        self._host = host
        self._max_adapters = max_adapters
        self._on_read = on_read
        self._loaded: OrderedDict[str, RowAdapter | None] = OrderedDict()
        self._reading: dict[str, Future[RowAdapter | None]] = {}
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="adapters")
        self.slots: RowSlots | None = RowSlots(host.base, num_slots)
        """None where rows cannot be told apart."""
        self._proven = False
        self._seats: list[str | None] = [None] * num_slots
        self.loads = 0
        self.evictions = 0

    @property
    def version_ids(self) -> tuple[str, ...]:
        """Versions in memory, least recently used first."""
        return tuple(self._loaded)

    def begin(self, adapter: AdapterRef) -> None:
        """Have a version read, unless it is in memory, or is being read, or enough others are."""
        version_id = adapter.version_id
        if version_id in self._loaded or version_id in self._reading or len(self._reading) >= self._max_adapters:
            return
        future = self._readers.submit(load_row_adapter, adapter.folder, self._host, self.slots)
        self._reading[version_id] = future
        future.add_done_callback(lambda _: self._on_read())

    def is_ready(self, version_id: str | None) -> bool:
        """Whether `ensure` would not wait for a disk: in memory, read, or found to be bad."""
        return version_id is None or version_id in self._loaded or self._is_read(version_id)

    def group(self, version_id: str | None) -> str | None:
        """None where rows of the version share a batch with those of others, else the version; asked when ready."""
        if version_id is None:
            return None
        if version_id in self._loaded:
            return version_id if self._loaded[version_id] is None else None
        read = self._reading[version_id]
        return version_id if read.exception() is not None or read.result() is None else None

    def can_take(self, version_id: str | None, pinned: Collection[str | None]) -> bool:
        """Whether the version has a place, or one can be made without dropping a pinned one."""
        return version_id is None or version_id in pinned or len({*pinned} - {None}) < self._max_adapters

    def ensure(self, adapter: AdapterRef, pinned: Collection[str | None]) -> None:
        """Have a version in memory, as the most recently used. Only when `can_take` said yes.

        Raises:
            AdapterError: damaged, unsafe, or made for another base.
        """
        version_id = adapter.version_id
        if version_id not in self._loaded:
            self._loaded[version_id] = self._load(adapter)
            self.loads += 1
            _log.info("adapter %s is in memory", version_id)
        self._loaded.move_to_end(version_id)
        if len(self._loaded) > self._max_adapters:
            self._drop(next(each for each in self._loaded if each not in pinned and each != version_id))

    def seat(self, version_id: str | None, pinned: Collection[str | None]) -> int | None:
        """The slot of a version in memory for a row of the shared batch; None for rows that need none.

        Args:
            version_id: the row's.
            pinned: versions of rows in generation, whose slots are not touched.
        """
        adapter = self._loaded[version_id] if version_id is not None else None
        if adapter is None or self.slots is None:
            return None
        if version_id in self._seats:
            return self._seats.index(version_id)
        empty = [slot for slot, seated in enumerate(self._seats) if seated is None]
        slot = min(empty or (slot for slot, seated in enumerate(self._seats) if seated not in pinned))
        self._seats[slot] = None
        self.slots.put(slot, adapter)
        self._seats[slot] = version_id
        return slot

    def forget_unwanted(self, wanted: Collection[str | None]) -> None:
        """Let go of versions that were read for rows which are gone."""
        for version_id in [each for each in self._reading if each not in wanted and self._is_read(each)]:
            del self._reading[version_id]

    @contextmanager
    def active(self, group: str | None) -> Iterator[Any]:
        """Put what rows of a batch need in force; yields the model as `AdapterHost.active` does."""
        with self._host.active(group) as model:
            yield model

    @contextmanager
    def alone(self, version_id: str | None, pinned: Collection[str | None]) -> Iterator[Any]:
        """Put a version that `ensure` has loaded, or the bare base, in force for whatever is asked of the model."""
        slot = self.seat(version_id, pinned)
        with self._host.active(version_id if slot is None else None) as model:
            if slot is None or self.slots is None:
                yield model
            else:
                with self.slots.everywhere(slot):
                    yield model

    def close(self) -> None:
        """Read nothing more."""
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _is_read(self, version_id: str) -> bool:
        return version_id in self._reading and self._reading[version_id].done()

    def _load(self, adapter: AdapterRef) -> RowAdapter | None:
        self.begin(adapter)
        future = self._reading.get(adapter.version_id)
        try:
            read = future.result() if future else load_row_adapter(adapter.folder, self._host, self.slots)
        finally:
            self._reading.pop(adapter.version_id, None)
        if read is not None and not self._proven:
            self._prove()
        if read is None or self.slots is None:
            self._host.load(adapter.version_id, adapter.folder)
            return None
        return read

    def _prove(self) -> None:
        """Before the first adapter shares a batch: rows of this base do not see each other's adapters."""
        assert self.slots is not None
        try:
            with self._host.active(None):
                self.slots.keep_row_by_row()
                self.slots.prove()
        except (ModelError, RuntimeError, ValueError, TypeError, IndexError) as error:
            _log.warning("every adapter gets a batch of its own on this base: %s", error)
            self.slots = None
        self._proven = True

    def _drop(self, version_id: str) -> None:
        if self._loaded.pop(version_id) is None:
            self._host.drop(version_id)
        self._seats = [None if seated == version_id else seated for seated in self._seats]
        self.evictions += 1
        _log.info("adapter %s left memory", version_id)
