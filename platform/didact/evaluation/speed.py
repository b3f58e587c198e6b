"""How long a short answer takes: each model on the same questions, one at a time and in turn, never from the cache."""

import statistics
import time
from collections.abc import Mapping, Sequence

from didact.evaluation.asks import Generation, Model
from didact.evaluation.questions import Question, Task
from didact.evaluation.results import TaskResult

SPEED = "speed"
SECONDS = f"eval/{SPEED}/seconds"
"""Median over the questions, of one answer."""
TOKENS_PER_SECOND = f"eval/{SPEED}/tokens_per_second"
NUM_QUESTIONS = 12
MAX_NEW_TOKENS = 32


async def measure_speed(models: Mapping[str, Model], tasks: Sequence[Task | None]) -> dict[str, TaskResult]:
    """Ask some of the tasks' questions; the models take turns, so that whatever else the machine does meets all alike.

    Args:
        models: by name.
        tasks: whose questions are asked, as a user would ask them.

    Returns:
        By model, a result without questions; nothing where the tasks have none, or a model does not answer.
    """
    asks = [Generation(each.messages, MAX_NEW_TOKENS) for each in _some(tasks)]
    started = time.perf_counter()
    seconds: dict[str, list[float]] = {name: [] for name in models}
    tokens = dict.fromkeys(models, 0)
    for number, ask in enumerate([*asks[:1], *asks]):  # the first one twice, since a model may have to be loaded
        for name, model in models.items():
            began = time.perf_counter()
            answer = await model.answer(ask)
            if answer.problem is not None:
                return {}
            if number:
                seconds[name].append(time.perf_counter() - began)
                tokens[name] += sum(text.num_tokens for text in answer.texts)
    if not asks:
        return {}
    counts = dict.fromkeys((SECONDS, TOKENS_PER_SECOND), len(asks))
    took = time.perf_counter() - started
    return {
        name: TaskResult(
            SPEED,
            {SECONDS: statistics.median(each), TOKENS_PER_SECOND: tokens[name] / sum(each)},
            counts,
            len(asks),
            took,
            metric="seconds",
        )
        for name, each in seconds.items()
    }


def _some(tasks: Sequence[Task | None]) -> list[Question]:
    """Evenly over all questions."""
    questions = [each for task in tasks if task is not None for each in task.questions]
    step = max(1, len(questions) // NUM_QUESTIONS)
    return questions[::step][:NUM_QUESTIONS]
