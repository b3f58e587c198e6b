"""Which adapter versions are in memory."""

from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from didact.logs import get_logger
from didact.models import AdapterHost
from didact.serving.engine.protocol import AdapterRef

_log = get_logger(__name__)


class AdapterPool:
    """Loads a version on first use and drops the least recently used one beyond `max_adapters`.

    A version is verified and loaded before another is dropped, so asking for a damaged one costs nobody their place.
    """

    def __init__(self, host: AdapterHost, max_adapters: int) -> None:
        self._host = host
        self._max_adapters = max_adapters
        self._loaded: OrderedDict[str, AdapterRef] = OrderedDict()
        self.loads = 0
        self.evictions = 0

    @property
    def version_ids(self) -> tuple[str, ...]:
        """Versions in memory, least recently used first."""
        return tuple(self._loaded)

    def can_take(self, version_id: str | None, pinned: Collection[str | None]) -> bool:
        """Whether the version is here, or a place can be made without dropping a pinned one."""
        if version_id is None or version_id in self._loaded or len(self._loaded) < self._max_adapters:
            return True
        return any(loaded not in pinned for loaded in self._loaded)

    def ensure(self, adapter: AdapterRef, pinned: Collection[str | None]) -> None:
        """Have a version in memory, as the most recently used. Only when `can_take` said yes.

        Raises:
            AdapterError: damaged, unsafe, or made for another base.
        """
        if adapter.version_id not in self._loaded:
            self._host.load(adapter.version_id, adapter.folder)
            self._loaded[adapter.version_id] = adapter
            self.loads += 1
            _log.info("adapter %s is in memory", adapter.version_id)
        self._loaded.move_to_end(adapter.version_id)
        if len(self._loaded) > self._max_adapters:
            victim = next(each for each in self._loaded if each not in pinned and each != adapter.version_id)
            del self._loaded[victim]
            self._host.drop(victim)
            self.evictions += 1
            _log.info("adapter %s left memory", victim)

    @contextmanager
    def active(self, version_id: str | None) -> Iterator[Any]:
        """Put a loaded version, or the bare base, in force; yields the model as `AdapterHost.active` does."""
        with self._host.active(version_id) as model:
            yield model
