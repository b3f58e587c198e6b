"""Requests that were in an engine when it died: none is sent to another engine, and its like is refused for a while.

    mark of a request -> is it suspect? -> Refusal | the reply's events; if an engine dies meanwhile, the mark is kept

A request that ends a process ends each one that it is sent to. Which of several in the engine was the cause cannot be
told from outside, so all of them are suspect, briefly at first; for long where one was alone, or is there when an
engine dies again. Each gateway learns by itself.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from didact.logs import get_logger
from didact.serving.engine.protocol import Delta, EngineDied
from didact.serving.replica.backend import Event, Refusal

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


class Suspects:
    """Remembers the marks of requests that an engine died of, and answers their like with a refusal."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._suspicions: OrderedDict[str, _Suspicion] = OrderedDict()
        self._running: list[_Running] = []

    async def watch(self, mark: str, ask: Callable[[], AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
        """The events that `ask` gives; a refusal instead, without asking, where the mark is suspect.

        Args:
            mark: of the request, see `Ask.mark`.
            ask: sends the request to a backend.
        """
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
            async with contextlib.aclosing(ask()) as events:
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
