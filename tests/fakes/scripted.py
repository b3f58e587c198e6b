"""A model that answers what a function says, for tests of tasks and of the way that they are asked."""

import asyncio
from collections.abc import Callable

from didact.evaluation import Answer, Ask, Asked, Identity, Model, Task, TaskResult, Text, run_task


def said(text: str) -> Answer:
    """A short answer."""
    return Answer((Text(text, max(1, len(text.split())), "stop"),), num_prompt_tokens=1)


class ScriptedModel(Model):
    """Answers by a function, and remembers what it was asked."""

    def __init__(self, answer: Callable[[Ask], Answer | str], name: str = "scripted", at_once: int = 4) -> None:
        self._answer, self._name, self._at_once = answer, name, at_once
        self.asked: list[Ask] = []
        self.most_at_once = 0
        self._running = 0

    @property
    def identity(self) -> Identity:
        return Identity(self._name, {"base": self._name})

    @property
    def at_once(self) -> int:
        return self._at_once

    async def answer(self, ask: Ask) -> Answer:
        self.asked.append(ask)
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        await asyncio.sleep(0)
        self._running -= 1
        answer = self._answer(ask)
        return said(answer) if isinstance(answer, str) else answer


def measure(task: Task, answer: Callable[[Ask], Answer | str], judge: Callable[[Ask], Answer | str] | None = None,
            rival: Callable[[Ask], Answer | str] | None = None) -> TaskResult:  # fmt: skip
    """What the task measures on a model that answers by a function."""

    async def measured() -> TaskResult:
        asked = {"model": Asked(ScriptedModel(answer), None)}
        for role, function in (("judge", judge), ("rival", rival)):
            if function is not None:
                asked[role] = Asked(ScriptedModel(function, role), None, may_fail=role == "judge")
        return await run_task(task, asked)

    return asyncio.run(measured())
