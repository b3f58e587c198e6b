"""A base with its adapters on as many Ray workers as there is room, asked as one model a subject.

    Subject... -> Answerers -> a Model each; an ask goes to the worker that has the fewest

Another worker takes the place of one that dies. What that had been asked is asked once more, and given up as a
question's problem when it ends a second worker, since the question may be the cause.
"""

import asyncio
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import ray
import torch
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError
from typing_extensions import override

from didact.cluster.asking.answering import EngineModels, Subject, SubjectFacts
from didact.cluster.placement import WorkerResources, connected_cluster
from didact.connect import receive
from didact.devices import is_out_of_memory, memory_words
from didact.errors import OutOfMemory, RunError
from didact.evaluation import Answer, Ask, Identity, Model, TaskResult, held_out_result, task_texts
from didact.logs import get_logger, kept_file, kept_in
from didact.models import supports_packing
from didact.preparation import open_prepared, prepare_data
from didact.serving.engine import EngineDied, EngineStopped
from didact.spec import FinetuneSpec

_log = get_logger(__name__)
_TRIES = 2
_REPLACED_AT_MOST = 3
"""Workers that are started anew for each one that there should be."""
_LOST = (RayActorError, OutOfMemoryError, WorkerCrashedError)


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Where held-out rows come from."""

    recipe: FinetuneSpec
    prepared: Path | None = None
    """The run's record of prepared data; None prepares the recipe's data where it is needed."""

    def open(self) -> Mapping[str, Any]:
        """Source name -> its held-out samples."""
        if self.prepared is not None:
            return open_prepared(self.prepared, self.recipe, task_texts).mixture.held_out
        return prepare_data(self.recipe, task_texts=task_texts).mixture.held_out


class _Worker:
    """One base in memory, in a process of its own."""

    def __init__(
        self, subjects: Mapping[str, Subject], resources: WorkerResources, batch_size: int, log: Path | None
    ) -> None:
        receive()
        self._kept = contextlib.ExitStack()  # until the process ends
        if log is not None:
            self._kept.enter_context(kept_in(log))
        self._device = torch.device("cuda" if resources.use_gpu else "cpu")
        self._batch_size = batch_size
        self._subjects = subjects
        if not resources.use_gpu:
            torch.set_num_threads(resources.num_cpus)

    async def load(self) -> dict[str, SubjectFacts]:
        """Not in `__init__`, whose errors Ray tells as its own."""
        try:
            self._models = EngineModels(self._subjects, device=self._device, batch_size=self._batch_size)
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error) from error
        return self._models.facts

    async def answer(self, key: str, ask: Ask) -> Answer:
        return await self._models.answer(key, ask)

    async def held_out(self, key: str, rows: HeldOutRows) -> TaskResult:
        samples = rows.open()
        packing = rows.recipe.packing and supports_packing(self._models.base)

        def measure(model: Any) -> TaskResult:
            return held_out_result(model, samples, batch_size=self._batch_size, packing=packing)

        try:
            return await asyncio.wrap_future(self._models.borrow(key, measure))
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        if not is_out_of_memory(error):
            return error
        return OutOfMemory(
            f"evaluation is {memory_words(error, self._device)}; set evaluation.batch_size below {self._batch_size}, "
            "max_new_tokens of its tasks lower, or model.quantization"
        )


@dataclass(slots=True, eq=False)
class _Place:
    """A worker that is ready."""

    worker: Any
    num_asked: int = 0


class Answerers:
    """Workers that hold one base and its adapters; an asynchronous context manager."""

    def __init__(
        self, subjects: Mapping[str, Subject], resources: WorkerResources, *, batch_size: int, num_asks: int
    ) -> None:
        """Decide how many workers there should be.

        Args:
            subjects: by key; all of one base.
            resources: of a worker.
            batch_size: asks that a worker answers together.
            num_asks: about as many will come: more workers than have something to do are not started.
        """
        room = max(1, connected_cluster().room(resources.bundle()))
        self._num_workers = max(1, min(room, math.ceil(num_asks / batch_size)))
        self.subjects, self._resources, self._batch_size = subjects, resources, batch_size
        self._ready: list[_Place] = []
        self._starting: set[asyncio.Task[None]] = set()
        self.workers: list[Any] = []
        """All that were started."""
        self._changed = asyncio.Condition()
        self.facts: dict[str, SubjectFacts] = {}
        """By subject, once a worker is ready."""
        self._failure: BaseException | None = None
        self._replaced = 0

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._num_workers):
                self._start()
            await self._place()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._starting:
            each.cancel()
        for worker in self.workers:
            ray.kill(worker)

    def model(self, key: str) -> Model:
        """A subject, as a model to ask."""
        return _OnWorkers(self, key, self.facts[key].identity, 2 * self._batch_size * self._num_workers)

    async def answer(self, key: str, ask: Ask) -> Answer:
        """Answer one ask; raises what keeps every worker from answering."""
        return await self._call("answer", key, ask) or Answer(
            problem=f"{_TRIES} workers ended while they had this question, which may be the cause"
        )

    async def held_out(self, key: str, rows: HeldOutRows) -> TaskResult:
        """Losses of a subject on held-out rows.

        Raises:
            RunError: the workers that were asked died.
        """
        result: TaskResult | None = await self._call("held_out", key, rows)
        if result is None:
            raise RunError(f"{_TRIES} workers ended while they computed held-out losses; see Ray's logs")
        return result

    async def _call(self, method: str, *arguments: Any) -> Any:
        """What a worker returns; None where each that was asked ended."""
        for _ in range(_TRIES):
            place = await self._place()
            place.num_asked += 1
            try:
                return await getattr(place.worker, method).remote(*arguments)
            except _LOST as error:
                self._replace(place, error)
            except RayTaskError as error:
                if not isinstance(error.cause, EngineStopped | EngineDied):
                    raise error.cause from error
                self._replace(place, error.cause)
            finally:
                place.num_asked -= 1
        return None

    async def _place(self) -> _Place:
        async with self._changed:
            await self._changed.wait_for(lambda: self._ready or self._failure is not None)
            if self._failure is not None:
                raise self._failure
            return min(self._ready, key=lambda place: place.num_asked)

    def _replace(self, place: _Place, error: BaseException) -> None:
        if place not in self._ready:  # another question met the same end
            return
        self._ready.remove(place)
        ray.kill(place.worker)
        self._replaced += 1
        _log.warning("a worker of the evaluation ended (%s); another one takes its place", type(error).__name__)
        if self._replaced > _REPLACED_AT_MOST * self._num_workers:
            self._failure = RunError(f"workers of the evaluation ended {self._replaced} times, the last with: {error}")
        self._start()

    def _start(self) -> None:
        starting = asyncio.create_task(self._load())
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _load(self) -> None:
        worker = (
            ray.remote(_Worker)
            .options(
                num_cpus=self._resources.num_cpus,
                num_gpus=1 if self._resources.use_gpu else 0,
                accelerator_type=self._resources.accelerator_type,
            )
            .remote(self.subjects, self._resources, self._batch_size, kept_file())
        )
        self.workers.append(worker)
        try:
            facts = await worker.load.remote()
        except Exception as error:  # noqa: BLE001 - raised where a question waits for a worker
            async with self._changed:
                self._failure = error.cause if isinstance(error, RayTaskError) else RunError(str(error))
                self._changed.notify_all()
            return
        async with self._changed:
            self.facts = facts
            self._ready.append(_Place(worker))
            self._changed.notify_all()


class _OnWorkers(Model):
    """One subject of `Answerers`."""

    def __init__(self, answerers: Answerers, key: str, identity: Identity, at_once: int) -> None:
        self._answerers, self._key, self._identity, self._at_once = answerers, key, identity, at_once

    @property
    @override
    def identity(self) -> Identity:
        return self._identity

    @property
    @override
    def at_once(self) -> int:
        return self._at_once

    @override
    async def answer(self, ask: Ask) -> Answer:
        return await self._answerers.answer(self._key, ask)
