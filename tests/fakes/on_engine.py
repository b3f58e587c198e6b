"""What an engine answers, as a model of evaluation, without Ray."""

from typing_extensions import override

from didact.cluster.asking.answering import EngineModels
from didact.evaluation import Answer, Ask, Identity, Model


class OnEngine(Model):
    """One of the subjects that stand on an engine's base."""

    def __init__(self, models: EngineModels, key: str = "base") -> None:
        self._models, self._key = models, key

    @property
    @override
    def identity(self) -> Identity:
        return self._models.facts[self._key].identity

    @property
    @override
    def at_once(self) -> int:
        return 8

    @override
    async def answer(self, ask: Ask) -> Answer:
        return await self._models.answer(self._key, ask)
