"""A backend without a model, whose engines end as a test wants."""

import asyncio
from collections.abc import AsyncGenerator

from typing_extensions import override

from didact.registry import ModelVersion
from didact.serving.engine.protocol import Delta, EngineStats
from didact.serving.metrics.snapshots import Snapshot
from didact.serving.replica.backend import (
    Ask,
    Backend,
    BaseFacts,
    Event,
    Refusal,
    Spelled,
    Spelling,
    Started,
    TokenizerFacts,
)

End = Exception | Refusal


class FallibleBackend(Backend):
    """Answers every prompt with one token, or ends as `ends` says of the prompt."""

    def __init__(self, ends: dict[str, End], otherwise: End | None = None) -> None:
        self.ends = ends
        self.otherwise = otherwise
        self.asked: list[Ask] = []

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        self.asked.append(ask)
        yield Started(1)
        await asyncio.sleep(0)  # others may begin
        end = self.ends.get(str(ask.prompt), self.otherwise)
        if isinstance(end, Exception):
            raise end
        yield Delta("x", (1,), "stop") if end is None else end

    @override
    def prepare(self, version: ModelVersion) -> None: ...

    @override
    async def stats(self) -> EngineStats:
        return EngineStats(0, 0, (), 0, 0, 0, 0)

    @override
    async def metrics(self) -> list[Snapshot]:
        return []

    @override
    async def facts(self) -> BaseFacts:
        return BaseFacts("a" * 64, 1024)

    @override
    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        return Spelled((1,), ("x",), "x")

    @override
    async def tokenizer(self) -> TokenizerFacts:
        return TokenizerFacts("Tokenizer", "", {}, 2)
