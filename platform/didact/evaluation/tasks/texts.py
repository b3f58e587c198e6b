"""What tasks ask, as texts that training must not hold."""

from collections.abc import Iterator, Sequence

from didact.datasets.quality import EvalText
from didact.evaluation.tasks.table import build_task
from didact.spec import TaskSpec


def task_texts(tasks: Sequence[TaskSpec]) -> Iterator[EvalText]:
    """Every question of every task that asks questions, named by task and question; held-out rows are none.

    Raises:
        DataError: a question file that cannot be read, or a generator that does not exist.
    """
    for spec in tasks:
        if (task := build_task(spec)) is not None:
            yield from (EvalText(task.name, question.id, question.text) for question in task.questions)
