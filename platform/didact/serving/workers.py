"""A `Backend` of Ray workers, each with the base in memory: as many as there is room for, and none over HTTP.

    ServeSpec -> WorkerBackend -> Ask -> the worker that has the fewest -> Events

Serve would do the same for a server; here nothing listens, and workers end with the file that they answer.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from didact import env
from didact.capacity import WorkerResources
from didact.connect import cluster_to_join
from didact.connect.pool import TRIES, ActorPool, begin_actor
from didact.errors import ClusterError, PlacementError
from didact.logs import kept_file
from didact.registry import ModelVersion
from didact.serving.engine.protocol import EngineDied, EngineStats, EngineStopped
from didact.serving.metrics.snapshots import Snapshot
from didact.serving.replica.adapter_store import FolderVersion
from didact.serving.replica.backend import Ask, Backend, BaseFacts, Event, Refusal, Spelled, Spelling, TokenizerFacts
from didact.spec import ServeSpec


class _Replica:
    """One base in memory with its engine, in a process of its own."""

    def __init__(self, spec: ServeSpec, resources: WorkerResources, log: Path | None) -> None:
        begin_actor(log)
        env.quiet_libraries()
        self._spec, self._resources = spec, resources

    async def load(self) -> BaseFacts:
        from didact.serving.replica.load_worker import build_worker  # torch and transformers, for this process only

        self._worker = await asyncio.to_thread(
            build_worker, self._spec, self._resources.num_cpus, on_gpu=self._resources.use_gpu
        )
        return await self._worker.facts()

    async def ask(self, ask: Ask) -> Sequence[Event]:
        """All of an answer: nobody watches it grow."""
        events = [event async for event in self._worker.ask(ask)]
        if isinstance(last := events[-1], Refusal) and last.kind in ("stopped", "died"):
            raise (EngineStopped if last.kind == "stopped" else EngineDied)(last.message)
        return events

    async def stats(self) -> EngineStats:
        return await self._worker.stats()

    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        return await self._worker.spell(spelling)

    async def tokenizer(self) -> TokenizerFacts:
        return await self._worker.tokenizer()


class WorkerBackend(Backend):
    """The workers; an asynchronous context manager inside a joined Ray.

    Args:
        spec: what each of them is built from.
        most: workers at most; None for as many as there is room for.
        num_asks: about as many will come: more workers than have something to do are not started.
        num_cpus: of each.

    Raises:
        ClusterError: no Ray is joined.
        PlacementError: there will never be room for one worker.
    """

    def __init__(self, spec: ServeSpec, *, most: int | None, num_asks: int, num_cpus: int = 1) -> None:
        cluster = cluster_to_join()
        if cluster is None:
            raise ClusterError("no Ray is joined; expected to be inside `ray_cluster()`")
        resources = WorkerResources(num_cpus, cluster.has_gpus())
        if (shortage := cluster.lasting_shortage(resources.bundle(), 1)) is not None:
            raise PlacementError(f"no room for a worker: {shortage.words}. The cluster has {cluster}; add nodes")
        useful = max(1, math.ceil(num_asks / spec.max_batch_size))
        self._pool = ActorPool(
            _Replica,
            (spec, resources, kept_file()),
            resources,
            number=min(max(1, cluster.room(resources.bundle())), useful, most or useful),
            work="prediction",
            spent=(EngineStopped, EngineDied),
        )
        self.num_workers = self._pool.number

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.__aexit__()

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        events: Sequence[Event] | None = await self._pool.call("ask", ask)
        if events is None:
            yield Refusal("died", f"{TRIES} workers ended while they had this line, which may be the cause")
            return
        for event in events:
            yield event

    @override
    def prepare(self, version: ModelVersion | FolderVersion) -> None:
        """Versions are brought into memory by the first line that wants them."""

    @override
    async def stats(self) -> EngineStats:
        stats: EngineStats = await self._pool.call("stats")
        return stats

    @override
    async def metrics(self) -> Sequence[Snapshot]:
        return []

    @override
    async def facts(self) -> BaseFacts:
        facts: BaseFacts = self._pool.loaded
        return facts

    @override
    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        found: Any = await self._pool.call("spell", spelling)
        return found if found is not None else Refusal("died", "the workers ended")

    @override
    async def tokenizer(self) -> TokenizerFacts:
        found: TokenizerFacts = await self._pool.call("tokenizer")
        return found
