"""Where questions come from and when an answer counts, one file a benchmark.

    TaskSpec -> build_task -> Task: questions, what is asked for each, a score for what came back

Example:
    >>> from didact.evaluation.tasks import build_task
    >>> from didact.spec import ReasoningGymTask
    >>> task = build_task(ReasoningGymTask(task="reasoning_gym", name="chain_sum", num_items=2))
    >>> len(task.questions), task.metric
    (2, 'accuracy')
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.tasks.once import TaskReader, check_tasks
    from didact.evaluation.tasks.table import build_task

__all__ = ["TaskReader", "build_task", "check_tasks"]

__getattr__ = lazily(__name__)
