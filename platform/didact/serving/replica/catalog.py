"""What the `model` field of a request means now.

    "demo" -> alias champion -> version 3 -> ModelVersion(name="demo", version=3)

Meanings are remembered and looked up again in the background, so a request waits for the registry only the first time a
name is used. A moved alias is followed once the new version is verified and in memory; until then, and when that fails,
the old one answers. While the registry is down, everything known keeps its meaning.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from didact.errors import AdapterError, DidactError, NotRegistered, RegistryError
from didact.logs import get_logger
from didact.registry import CHAMPION, ModelVersion, Registry, meant_by_bare_name, parse_reference
from didact.serving.replica.adapter_store import version_id

_log = get_logger(__name__)
_REMEMBERED = 1024
_ABSENT_SECONDS = 2.0
"""How long a name stays unknown before the registry is asked again."""

_REFUSED_SECONDS = 60.0
"""How long a version that could not be served is left alone before it is tried again."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A name resolved."""

    name: str
    """As the client wrote it."""
    version: ModelVersion | None
    """None is the base."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A registered name, for the list of models."""

    version: ModelVersion
    """What the bare name means."""
    aliases: tuple[str, ...]
    """Aliases that the name has, on any version."""


class Catalog:
    """Resolves model names and follows their aliases.

    Args:
        base_name: the name that means the base; it wins over an adapter of the same name.
        registry: where adapters are registered.
        prepare: blocks until a version can answer; called before a name changes its meaning. Raises AdapterError or
            RegistryError when the version cannot be served.
        default_alias: the alias that a bare adapter name means.
        poll_seconds: time between two looks at the registry.
    """

    def __init__(
        self,
        base_name: str,
        registry: Registry,
        prepare: Callable[[ModelVersion], None],
        *,
        default_alias: str = CHAMPION,
        poll_seconds: float = 1.0,
    ) -> None:
        self.base_name = base_name
        self._registry = registry
        self._prepare = prepare
        self._default_alias = default_alias
        self._poll_seconds = poll_seconds
        self._known: OrderedDict[str, ModelVersion] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._offers: tuple[Offer, ...] = ()
        self._refused: dict[str, float] = {}
        self._complaint: str | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def resolve(self, name: str) -> Meaning:
        """The meaning of a name. May ask the registry: call it off the event loop.

        Raises:
            NotRegistered: no such model, version or alias.
            RegistryError: a name not seen before while the registry cannot be reached.
        """
        if name == self.base_name:
            return Meaning(name, None)
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return Meaning(name, self._known[name])
            if not _is_reference(name) or self._absent.get(name, 0) > time.monotonic():
                raise NotRegistered(f"no model {name!r}")
        try:
            version = self._registry.resolve(name, self._default_alias)
        except NotRegistered:
            with self._lock:
                _remember(self._absent, name, time.monotonic() + min(_ABSENT_SECONDS, self._poll_seconds))
            raise
        with self._lock:
            _remember(self._known, name, version)
        return Meaning(name, version)

    def offers(self) -> Sequence[Offer]:
        """All registered names, as of the last look."""
        return self._offers

    def refresh(self) -> None:
        """Look at the registry once: follow moved aliases, forget removed names, update the list."""
        with self._lock:
            known = dict(self._known)
        try:
            for name, old in known.items():
                if ":" not in name:  # a version number never changes its meaning
                    self._follow(name, old)
            self._offers = _offers(self._registry.list(), self._default_alias)
        except RegistryError as error:
            self._complain(f"the model registry cannot be read, names keep their meaning: {error}")
        else:
            self._complaint = None

    def start(self) -> None:
        """Look at the registry now and from here on in the background."""
        self.refresh()
        self._thread = threading.Thread(target=self._watch, name="catalog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the background looks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - a thread that ended would leave the names frozen for good
                _log.exception("looking at the model registry failed")

    def _follow(self, name: str, old: ModelVersion) -> None:
        try:
            new = self._registry.resolve(name, self._default_alias)
        except NotRegistered:
            _log.warning("%s is no longer registered", name)
            with self._lock:
                self._known.pop(name, None)
            return
        before, after = version_id(old), version_id(new)
        if before == after or self._refused.get(after, 0) > time.monotonic():
            return
        try:
            self._prepare(new)
        except AdapterError as error:
            self._refused[after] = time.monotonic() + _REFUSED_SECONDS
            _log.warning("%s keeps answering as %s: %s cannot be served: %s", name, before, after, error)
            return
        except DidactError as error:
            _log.warning("%s keeps answering as %s for now: %s could not be prepared: %s", name, before, after, error)
            return
        with self._lock:
            if name in self._known:
                self._known[name] = new
        _log.info("%s now means %s (was %s)", name, after, before)

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            _log.warning("%s", complaint)
        self._complaint = complaint


def _is_reference(name: str) -> bool:
    """Whether the registry could hold such a name at all."""
    try:
        parse_reference(name)
    except RegistryError:
        return False
    return True


def _offers(versions: Iterable[ModelVersion], default_alias: str) -> tuple[Offer, ...]:
    """One offer per name, by the rule of `Registry.resolve`."""
    by_name: dict[str, list[ModelVersion]] = {}
    for version in versions:
        by_name.setdefault(version.name, []).append(version)
    offers = []
    for named in by_name.values():
        newest = max(named, key=lambda version: version.version)
        held = {alias: version for version in named for alias in version.aliases}
        alias = meant_by_bare_name(held, default_alias)
        offers.append(Offer(held[alias] if alias else newest, tuple(sorted(held))))
    return tuple(offers)


def _remember(store: OrderedDict[str, Any], name: str, value: object) -> None:
    """Keep the newest names only: a client could ask for any number of them."""
    store[name] = value
    store.move_to_end(name)
    while len(store) > _REMEMBERED:
        store.popitem(last=False)
