"""Requests that were in an engine when it died: none is sent to another engine, and its like is refused for a while.

    Ask -> its mark is suspect? -> Refusal | the backend's events, and the mark of what an engine died of

A request that ends a process ends each one that it is sent to. Which of several in the engine was the cause cannot be
told from outside, so all of them are suspect, briefly at first; for long where one was alone, or is there when an
engine dies again. Each gateway learns by itself.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass

from typing_extensions import override

from didact.files import fingerprint
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.engine.protocol import Delta, EngineDied, EngineStats
from didact.serving.replica.adapter_store import version_id
from didact.serving.replica.worker import Ask, Backend, BaseFacts, Event, Refusal

_log = get_logger(__name__)
_REMEMBERED = 4096
_FIRST_SECONDS = 60.0
_LONG_SECONDS = 600.0


@dataclass(slots=True, eq=False)
class _Running:
    mark: str
    alone: bool
    """No request of another mark was there at any time meanwhile."""


@dataclass(frozen=True, slots=True)
class _Suspicion:
    until: float
    deaths: int


class GuardedBackend(Backend):
    """A backend that is asked nothing of the kind that one of its engines has just died of."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._clock = clock
        self._suspicions: OrderedDict[str, _Suspicion] = OrderedDict()
        self._running: list[_Running] = []

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        mark = mark_of(ask)
        suspicion = self._suspicions.get(mark)
        if suspicion is not None and (left := suspicion.until - self._clock()) > 0:
            yield Refusal(
                "suspect",
                "An engine died while it had this very request, so it is not sent to another one; it may be asked "
                f"again in {left:.0f} seconds.",
            )
            return
        running = self._begin(mark)
        try:
            async with contextlib.aclosing(self._backend.ask(ask)) as events:
                async for event in events:
                    if isinstance(event, Refusal) and event.kind == "died":
                        self._suspect(running)
                    if isinstance(event, Delta) and event.finish_reason:
                        self._suspicions.pop(mark, None)
                    yield event
        except EngineDied as error:
            self._suspect(running)
            yield Refusal("died", str(error))
        finally:
            self._running.remove(running)

    @override
    def prepare(self, version: ModelVersion) -> None:
        self._backend.prepare(version)

    @override
    async def stats(self) -> EngineStats:
        return await self._backend.stats()

    @override
    async def facts(self) -> BaseFacts:
        return await self._backend.facts()

    def _begin(self, mark: str) -> _Running:
        others = [each for each in self._running if each.mark != mark]
        for each in others:
            each.alone = False
        running = _Running(mark, alone=not others)
        self._running.append(running)
        return running

    def _suspect(self, running: _Running) -> None:
        mark = running.mark
        before = self._suspicions.get(mark)
        deaths = 1 if before is None else before.deaths + 1
        seconds = _LONG_SECONDS if deaths > 1 or running.alone else _FIRST_SECONDS
        _log.error("an engine died while it had request %s; its like is refused for %.0f s", mark[:12], seconds)
        self._suspicions[mark] = _Suspicion(self._clock() + seconds, deaths)
        self._suspicions.move_to_end(mark)
        if len(self._suspicions) > _REMEMBERED:
            self._suspicions.popitem(last=False)


def mark_of(ask: Ask) -> str:
    """Digest of all that decides what an engine does with a request, the seed aside."""
    adapter = version_id(ask.adapter) if isinstance(ask.adapter, ModelVersion) else ask.adapter
    prompt = ask.prompt if isinstance(ask.prompt, str) else [_plain(part) for part in ask.prompt]
    sampling = {**asdict(ask.sampling), "seed": None}
    return fingerprint([str(adapter), prompt, sampling, ask.max_new_tokens, ask.stop, ask.stop_token_ids])


def _plain(part: object) -> object:
    return part if isinstance(part, int) else asdict(part)  # type: ignore[call-overload]
