"""What the `model` field of a request means now.

    "demo" -> alias champion -> version 3 -> ModelVersion(name="demo", version=3)

One look at the registry, the same question whatever it holds, says what all names mean. Looks are taken in the
background and requests are answered from the last one; only a name that it does not hold waits for the next. A name in
use that means another version follows it once that version is verified and in memory; until then, and when that fails,
the old one answers. While the registry is down, everything known keeps its meaning.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from didact.errors import AdapterError, DidactError, NotRegistered, RegistryError
from didact.logs import get_logger
from didact.registry import CHAMPION, Holding, ModelVersion, Reference, Registry, meant_by_bare_name, parse_reference
from didact.serving.engine.protocol import AdapterRef
from didact.serving.replica.adapter_store import FolderVersion, version_id
from didact.serving.replica.worker import words_for_clients

_log = get_logger(__name__)
_REMEMBERED = 1024
_ABSENT_SECONDS = 2.0
"""How long a name stays unknown before the registry is looked at again for it."""

_REFUSED_SECONDS = 60.0
"""How long a version that could not be served is left alone before it is tried again."""

_NEW_PER_LOOK = 50
"""Versions for the list that are asked for in one look; names in use do not wait for them."""

_SHORTEST_GAP_SECONDS = 0.1
_GAPS_PER_LOOK = 20
"""The time between looks is at least this many times what one took: however many names are unknown or registered,
looking costs a twentieth of a processor at most."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """A name resolved."""

    name: str
    """As the client wrote it."""
    version: ModelVersion | None
    """None is the base, or a folder."""
    folder: AdapterRef | FolderVersion | None = None
    """An adapter that is not registered."""

    @property
    def adapter(self) -> ModelVersion | AdapterRef | FolderVersion | None:
        """What answers; None is the base."""
        return self.folder or self.version


@dataclass(frozen=True, slots=True)
class Offer:
    """A registered name, for the list of models."""

    version: ModelVersion
    """What the bare name means."""
    aliases: tuple[str, ...]
    """Aliases that the name has, on any version."""


@dataclass(frozen=True, slots=True)
class _Move:
    name: str
    before: ModelVersion
    after: ModelVersion


class Catalog:
    """Resolves model names and follows their aliases.

    Args:
        base_name: the name that means the base; it wins over an adapter of the same name.
        registry: where adapters are registered.
        prepare: blocks until a version can answer; called before a name changes its meaning. Raises AdapterError or
            RegistryError when the version cannot be served.
        default_alias: the alias that a bare adapter name means.
        poll_seconds: time between two looks at the registry.
        unfit: why the engine cannot serve a version at all, as far as its tags tell; None where it can.
    """

    def __init__(
        self,
        base_name: str,
        registry: Registry,
        prepare: Callable[[ModelVersion], None],
        *,
        default_alias: str = CHAMPION,
        poll_seconds: float = 1.0,
        unfit: Callable[[ModelVersion], str | None] = lambda version: None,
    ) -> None:
        self.base_name = base_name
        self._registry = registry
        self._prepare = prepare
        self._default_alias = default_alias
        self._poll_seconds = poll_seconds
        self._unfit = unfit
        self._known: OrderedDict[str, ModelVersion] = OrderedDict()
        self._absent: OrderedDict[str, float] = OrderedDict()
        self._wanted: OrderedDict[str, None] = OrderedDict()
        self._holdings: Mapping[str, Holding] = {}
        self._versions: OrderedDict[tuple[str, int, int], ModelVersion] = OrderedDict()
        self._refused: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._complaint: str | None = None
        self._lock = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._asked, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._moving: set[str] = set()

    def meaning(self, name: str) -> Meaning | None:
        """The meaning of a name, at once; None where only another look at the registry can tell.

        Raises:
            NotRegistered: no such model, version or alias.
        """
        if name == self.base_name:
            return Meaning(name, None)
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return Meaning(name, self._known[name])
            if not _is_reference(name) or self._absent.get(name, 0) > time.monotonic():
                raise NotRegistered(f"no model {name!r}")
        return None

    def next_look(self, name: str) -> "Future[None]":
        """Done when the registry was looked at for `name`, early if need be; then ask for its `meaning` again.

        The future raises RegistryError when the registry cannot be reached.
        """
        looked: Future[None] = Future()
        with self._lock:
            _remember(self._wanted, name, None)
            self._waiting.append(looked)
            self._asked.set()
        return looked

    def resolve(self, name: str) -> Meaning:
        """The meaning of a name; blocks where the registry must be looked at.

        Raises:
            NotRegistered: no such model, version or alias.
            RegistryError: a name not seen before while the registry cannot be reached.
        """
        found = self.meaning(name)
        if found is None:
            looked = self.next_look(name)
            if self._thread is None:
                self.refresh()
            looked.result()
            found = self.meaning(name)
        if found is None:
            raise NotRegistered(f"no model {name!r}")
        return found

    def offers(self) -> Sequence[Offer]:
        """All registered names, as of the last look."""
        found = []
        for name, held in sorted(self._holdings.items()):
            version = self._known.get(name) or self._cached(held, _number(held, Reference(name), self._default_alias))
            if version is not None:
                aliases = tuple(alias for alias, number in sorted(held.aliases.items()) if number == version.version)
                offered = replace(version, aliases=aliases)
                found.append(Offer(offered, tuple(sorted(held.aliases))))
        return found

    def problem(self, name: str, version: ModelVersion) -> str | None:
        """Why a name still answers as another version than the registry says, or not at all; None where all is well."""
        return self._problems.get(name) or self._unfit(version)

    def refresh(self) -> None:
        """Look at the registry once: follow moved aliases, forget removed names, update the list."""
        for move in self._look():
            self._follow(move)

    def start(self) -> None:
        """Look at the registry now and from here on in the background."""
        self.refresh()
        for offer in self.offers():
            if why := self._unfit(offer.version):
                _log.warning("%s is registered and will not be served: %s", offer.version.id, why)
        self._thread = threading.Thread(target=self._watch, name="catalog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the background looks."""
        self._stop.set()
        self._asked.set()
        if self._thread is not None:
            self._thread.join()
        self._preparing.shutdown(wait=False, cancel_futures=True)

    def _watch(self) -> None:
        pause = self._poll_seconds
        while True:
            self._asked.wait(pause)
            if self._stop.is_set():
                return
            started = time.monotonic()
            try:
                moves = self._look()
            except Exception:  # noqa: BLE001 - a thread that ended would leave the names frozen for good
                _log.exception("looking at the model registry failed")
                moves = []
            for move in moves:
                self._preparing.submit(self._follow, move)
            gap = max(_GAPS_PER_LOOK * (time.monotonic() - started), min(_SHORTEST_GAP_SECONDS, self._poll_seconds))
            pause = max(self._poll_seconds - gap, 0)
            self._stop.wait(gap)

    def _look(self) -> list[_Move]:
        """Look once; returns the names in use that mean another version now."""
        with self._lock:
            wanted, self._wanted = tuple(self._wanted), OrderedDict()
            waiting, self._waiting = self._waiting, []
            self._asked.clear()
        error: BaseException | None = None
        try:
            self._holdings = {held.name: held for held in self._registry.holdings()}
            moves = self._read(wanted)
        except RegistryError as failed:
            self._complain(f"the model registry cannot be read, names keep their meaning: {failed}")
            error, moves = failed, []
        except BaseException as failed:
            error = failed
            raise
        else:
            self._complaint = None
        finally:
            for looked in waiting:
                if not looked.set_running_or_notify_cancel():  # its client left
                    continue
                if error is None:
                    looked.set_result(None)
                else:
                    looked.set_exception(error)
        return moves

    def _read(self, wanted: Sequence[str]) -> list[_Move]:
        bare = [(held, _number(held, Reference(held.name), self._default_alias)) for held in self._holdings.values()]
        new = [(held, number) for held, number in bare if number is not None and self._cached(held, number) is None]
        for held, number in new[:_NEW_PER_LOOK]:  # so that the list knows what the bare names mean
            self._find(held, number)
        for name in wanted:
            version = self._version(name)
            with self._lock:
                if version is None:
                    _remember(self._absent, name, time.monotonic() + min(_ABSENT_SECONDS, self._poll_seconds))
                else:
                    _remember(self._known, name, version)
        moves = []
        with self._lock:
            known = dict(self._known)
        for name, before in known.items():
            if ":" in name:  # a version number never changes its meaning
                continue
            after = self._version(name)
            if after is None:
                _log.warning("%s is no longer registered", name)
                with self._lock:
                    self._known.pop(name, None)
            elif version_id(after) == version_id(before):
                self._problems.pop(name, None)
            elif name not in self._moving and self._refused.get(version_id(after), 0) <= time.monotonic():
                self._moving.add(name)
                moves.append(_Move(name, before, after))
        return moves

    def _version(self, name: str) -> ModelVersion | None:
        """What a name means by the last look; None where it means nothing."""
        wanted = parse_reference(name)
        held = self._holdings.get(wanted.name)
        return None if held is None else self._find(held, _number(held, wanted, self._default_alias))

    def _find(self, held: Holding, number: int | None) -> ModelVersion | None:
        """A version of a name; the registry is asked for it once, for the newest not at all."""
        found = self._cached(held, number)
        if found is None and number is not None:
            try:
                found = self._registry.version(held.name, number)
            except NotRegistered:
                return None
            _remember(self._versions, (held.name, held.created_ms, number), found, most=8 * _REMEMBERED)
        return found

    def _cached(self, held: Holding, number: int | None) -> ModelVersion | None:
        if held.newest is not None and number == held.newest.version:
            return held.newest
        return None if number is None else self._versions.get((held.name, held.created_ms, number))

    def _follow(self, move: _Move) -> None:
        name, before, after = move.name, version_id(move.before), version_id(move.after)
        try:
            self._prepare(move.after)
        except AdapterError as error:
            self._refused[after] = time.monotonic() + _REFUSED_SECONDS
            words = words_for_clients(error, move.after.id)
            self._problems[name] = f"answers as {before}: {move.after.id} cannot be served: {words}"
            _log.warning("%s keeps answering as %s: %s cannot be served: %s", name, before, after, error)
        except DidactError as error:
            _log.warning("%s keeps answering as %s for now: %s could not be prepared: %s", name, before, after, error)
        except Exception:  # noqa: BLE001 - tried again after the next look
            _log.exception("%s keeps answering as %s for now: %s could not be prepared", name, before, after)
        else:
            with self._lock:
                if name in self._known:
                    self._known[name] = move.after
            self._problems.pop(name, None)
            _log.info("%s now means %s (was %s)", name, after, before)
        finally:
            self._moving.discard(name)

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            _log.warning("%s", complaint)
        self._complaint = complaint


def _number(held: Holding, wanted: Reference, default_alias: str) -> int | None:
    """The version that a reference means, by the rule of `Registry.resolve`."""
    if wanted.version is not None:
        return wanted.version if held.newest is not None and 1 <= wanted.version <= held.newest.version else None
    alias = wanted.alias or meant_by_bare_name(held.aliases, default_alias)
    if alias is not None:
        return held.aliases.get(alias)
    return held.newest.version if held.newest is not None else None


def _is_reference(name: str) -> bool:
    """Whether the registry could hold such a name at all."""
    try:
        parse_reference(name)
    except RegistryError:
        return False
    return True


def _remember(store: OrderedDict[Any, Any], key: object, value: object, most: int = _REMEMBERED) -> None:
    """Keep the newest only: a client could ask for any number of names."""
    store[key] = value
    store.move_to_end(key)
    while len(store) > most:
        store.popitem(last=False)
