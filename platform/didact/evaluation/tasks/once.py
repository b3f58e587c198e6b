"""Questions that are read once: those that were checked are those that are asked, and that training must not hold."""

from collections.abc import Iterator, Sequence

from didact.datasets.quality import EvalText
from didact.evaluation.questions import Task
from didact.evaluation.tasks.table import build_task
from didact.spec import EvaluationSpec, LmEvalTask, TaskSpec


class TaskReader:
    """Gives tasks by their specs, and reads the files of each one once."""

    def __init__(self) -> None:
        self._read: dict[tuple[type, str], Task | None] = {}

    def task(self, spec: TaskSpec) -> Task | None:
        """As `build_task`, the same task each time; its files may have gone meanwhile.

        Raises:
            DataError: as `build_task`.
        """
        name = (type(spec), spec.model_dump_json())
        if name not in self._read:
            self._read[name] = build_task(spec)
        return self._read[name]

    def texts(self, specs: Sequence[TaskSpec]) -> Iterator[EvalText]:
        """Every question of every task that asks questions, named by task and question; held-out rows are none.

        Raises:
            DataError: a question file that cannot be read, or a generator that does not exist.
        """
        for spec in specs:
            if (task := self.task(spec)) is not None:
                yield from (EvalText(task.name, question.id, question.text) for question in task.questions)


def task_texts(specs: Sequence[TaskSpec]) -> Iterator[EvalText]:
    """As `TaskReader.texts`, read now: for processes in which nobody else reads these tasks."""
    return TaskReader().texts(specs)


def check_tasks(evaluation: EvaluationSpec | None) -> TaskReader:
    """Read the questions of all tasks: what is wrong in their files is known before anything long begins.

    Those of lm-eval, which it may have to download, are left aside until they are asked.

    Raises:
        DidactError: as `build_task`.
    """
    reader = TaskReader()
    for spec in evaluation.tasks if evaluation is not None else ():
        if not isinstance(spec, LmEvalTask):
            reader.task(spec)
    return reader
