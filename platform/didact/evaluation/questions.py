"""The questions of a recipe's tasks as texts, for the search of training data that holds them."""

from collections.abc import Iterator, Sequence

from didact.datasets.quality import EvalText
from didact.evaluation.items import gsm8k_items, reasoning_gym_items
from didact.spec import Gsm8kTask, ReasoningGymTask, TaskSpec


def task_texts(tasks: Sequence[TaskSpec]) -> Iterator[EvalText]:
    """Every question of every task that asks questions, named by task and number; held-out rows are none.

    Raises:
        DataError: a question file that cannot be read, or a generator that does not exist.
    """
    for task in tasks:
        if isinstance(task, Gsm8kTask):
            name, items = "gsm8k", gsm8k_items(task)
        elif isinstance(task, ReasoningGymTask):
            name, items = task.name, reasoning_gym_items(task)
        else:
            continue
        for number, item in enumerate(items):
            yield EvalText(name, str(number), item.question)
