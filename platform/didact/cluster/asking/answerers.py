"""A base with its adapters on as many Ray workers as there is room, asked as one model a subject.

    Subject... -> Answerers (an `ActorPool`) -> a Model each

A question that ends two workers is given up with that as its problem, since it may be the cause.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from typing_extensions import override

from didact.capacity import WorkerResources
from didact.cluster.asking.subjects import HeldOutRows, Subject, SubjectFacts
from didact.cluster.placement import connected_cluster
from didact.connect.pool import TRIES, ActorPool, begin_actor
from didact.devices import is_out_of_memory, memory_words
from didact.errors import OutOfMemory, RunError
from didact.evaluation import Answer, Ask, Identity, Model, TaskResult
from didact.logs import kept_file
from didact.serving.engine import EngineDied, EngineStopped


class _Worker:
    """One base in memory, in a process of its own."""

    def __init__(
        self, subjects: Mapping[str, Subject], resources: WorkerResources, batch_size: int, log: Path | None
    ) -> None:
        begin_actor(log)
        self._device = torch.device("cuda" if resources.use_gpu else "cpu")
        self._batch_size = batch_size
        self._subjects = subjects
        if not resources.use_gpu:
            torch.set_num_threads(resources.num_cpus)

    async def load(self) -> dict[str, SubjectFacts]:
        """Not in `__init__`, whose errors Ray tells as its own."""
        from didact.cluster.asking.answering import EngineModels  # here: whoever asks this process loads no model

        try:
            self._models = EngineModels(self._subjects, device=self._device, batch_size=self._batch_size)
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error) from error
        return self._models.facts

    async def answer(self, key: str, ask: Ask) -> Answer:
        return await self._models.answer(key, ask)

    async def held_out(self, key: str, rows: HeldOutRows) -> TaskResult:
        try:
            return await self._models.held_out(key, rows)
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        if not is_out_of_memory(error):
            return error
        return OutOfMemory(
            f"evaluation is {memory_words(error, self._device)}; set evaluation.batch_size below {self._batch_size}, "
            "max_new_tokens of its tasks lower, or model.quantization"
        )


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
        self.subjects, self._batch_size = subjects, batch_size
        self._pool = ActorPool(
            _Worker,
            (subjects, resources, batch_size, kept_file()),
            resources,
            number=max(1, min(room, math.ceil(num_asks / batch_size))),
            work="evaluation",
            spent=(EngineStopped, EngineDied),
        )

    @property
    def workers(self) -> list[Any]:
        """All that were started."""
        return self._pool.actors

    @property
    def facts(self) -> dict[str, SubjectFacts]:
        """By subject, once a worker is ready."""
        return self._pool.loaded or {}

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.__aexit__()

    def model(self, key: str) -> Model:
        """A subject, as a model to ask."""
        return _OnWorkers(self, key, self.facts[key].identity, 2 * self._batch_size * self._pool.number)

    async def answer(self, key: str, ask: Ask) -> Answer:
        """Answer one ask; raises what keeps every worker from answering."""
        return await self._pool.call("answer", key, ask) or Answer(
            problem=f"{TRIES} workers ended while they had this question, which may be the cause"
        )

    async def held_out(self, key: str, rows: HeldOutRows) -> TaskResult:
        """Losses of a subject on held-out rows.

        Raises:
            RunError: the workers that were asked died.
        """
        result: TaskResult | None = await self._pool.call("held_out", key, rows, alone=True)
        if result is None:
            raise RunError(f"{TRIES} workers ended while they computed held-out losses; see Ray's logs")
        return result


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
