"""Actors of one class on as many nodes as there is room: each call goes to the one that has the fewest.

Another actor takes the place of one that dies. What that had been asked is asked once more, and given up when it ends a
second one, since the question may be the cause.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from didact.capacity import WorkerResources
from didact.connect.handover import receive
from didact.errors import RunError
from didact.logs import get_logger, kept_in

_log = get_logger(__name__)
TRIES = 2
"""Actors that a call may end before it is given up."""

_REPLACED_AT_MOST = 3
"""Actors that are started anew for each one that there should be."""

_PATIENCE_SECONDS = 60.0
"""Until it is told that an actor has not begun, which Ray would wait for in silence; then twice as long each time."""

_LOST = (RayActorError, OutOfMemoryError, WorkerCrashedError)


_UNTIL_THE_END = contextlib.ExitStack()


def begin_actor(log: Path | None) -> None:
    """First thing in an actor: take what the driver handed over, and keep its log until the process ends.

    Args:
        log: the file; None where there is none.
    """
    receive()
    if log is not None:
        _UNTIL_THE_END.enter_context(kept_in(log))


@dataclass(slots=True, eq=False)
class _Place:
    """An actor that is ready."""

    actor: Any
    num_asked: int = 0


class ActorPool:
    """The actors; an asynchronous context manager, which ends them.

    Args:
        kind: their class. Its method `load()` is called first and says what there is to know of an actor that is ready:
            what goes wrong in `__init__` Ray tells as an error of its own.
        arguments: of the class.
        resources: of each.
        number: how many there should be.
        work: what they do, for messages.
        spent: errors of a call after which an actor can do nothing more.
    """

    def __init__(
        self,
        kind: type,
        arguments: Sequence[Any],
        resources: WorkerResources,
        *,
        number: int,
        work: str,
        spent: tuple[type[Exception], ...] = (),
    ) -> None:
        self._kind, self._arguments, self._resources, self._work, self._spent = kind, arguments, resources, work, spent
        self.number = number
        self.actors: list[Any] = []
        """All that were started."""
        self.loaded: Any = None
        """What `load` of the newest one said."""
        self._ready: list[_Place] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._failure: BaseException | None = None
        self._replaced = 0
        self._patient = 0
        """Calls that wait for an actor which nobody else asks."""

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self.number):
                self._start()
            await self._place()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._starting:
            each.cancel()
        for actor in self.actors:
            ray.kill(actor)

    async def call(self, method: str, *arguments: Any, alone: bool = False) -> Any:
        """What an actor returns; None where each that was asked ended.

        Args:
            method: of the actor.
            arguments: of the method.
            alone: it takes long: while others begin, wait for one of them rather than behind another call.

        Raises:
            Exception: what the method raised, or what keeps every actor from answering.
        """
        for _ in range(TRIES):
            place = await self._place(alone=alone)
            place.num_asked += 1
            try:
                return await getattr(place.actor, method).remote(*arguments)
            except _LOST as error:
                self._replace(place, error)
            except RayTaskError as error:
                if not isinstance(error.cause, self._spent):
                    raise error.cause from error
                self._replace(place, error.cause)
            finally:
                place.num_asked -= 1
                if self._patient:
                    async with self._changed:
                        self._changed.notify_all()
        return None

    async def _place(self, *, alone: bool = False) -> _Place:
        def open_to_it() -> list[_Place]:
            return [each for each in self._ready if not (alone and self._starting and each.num_asked)]

        self._patient += alone
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: open_to_it() or self._failure is not None)
                if self._failure is not None:
                    raise self._failure
                return min(open_to_it(), key=lambda place: place.num_asked)
        finally:
            self._patient -= alone

    def _replace(self, place: _Place, error: BaseException) -> None:
        if place not in self._ready:  # another call met the same end
            return
        self._ready.remove(place)
        ray.kill(place.actor)
        self._replaced += 1
        _log.warning("a worker of the %s ended (%s); another one takes its place", self._work, type(error).__name__)
        if self._replaced > _REPLACED_AT_MOST * self.number:
            self._failure = RunError(
                f"workers of the {self._work} ended {self._replaced} times, the last with: {error}"
            )
        self._start()

    def _start(self) -> None:
        starting = asyncio.create_task(self._load())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _load(self) -> None:
        try:
            actor = ray.remote(self._kind).options(**self._resources.actor_options()).remote(*self._arguments)
            self.actors.append(actor)
            await self._begun(actor)
            loaded = await actor.load.remote()
        except Exception as error:  # noqa: BLE001 - raised where a call waits for an actor
            async with self._changed:
                self._failure = error.cause if isinstance(error, RayTaskError) else RunError(str(error))
                self._changed.notify_all()
            return
        async with self._changed:
            self.loaded = loaded
            self._ready.append(_Place(actor))
            self._changed.notify_all()

    async def _begun(self, actor: Any) -> None:
        """Wait until it has a place and its process works, and say that it takes long where it does."""
        begun, waited, patience = asyncio.ensure_future(actor.__ray_ready__.remote()), 0.0, _PATIENCE_SECONDS
        try:
            while not (await asyncio.wait({begun}, timeout=patience))[0]:
                waited, patience = waited + patience, 2 * patience
                room = await asyncio.to_thread(_room, self._resources)
                _log.warning("the %s has waited %g s for a worker (%s)", self._work, waited, room)
            await begun
        finally:
            begun.cancel()


def _room(resources: WorkerResources) -> str:
    """`CPU: 1 asked, 0 of 2 free`, of each resource that a worker asks for."""
    free, there = ray.available_resources(), ray.cluster_resources()
    asked = {name: amount for name, amount in resources.bundle().items() if ":" not in name}
    return "; ".join(
        f"{name}: {amount:g} asked, {free.get(name, 0):g} of {there.get(name, 0):g} free"
        for name, amount in asked.items()
    )
