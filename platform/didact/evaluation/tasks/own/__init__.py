"""Questions of one's own: a file, a scorer by name, perhaps a template.

    QuestionsTask -> file -> rows -> (template) -> Question -> TextTask with the named scorer, or with a judge

Example:
    >>> from didact.evaluation.tasks.own import build_questions
    >>> from didact.spec import QuestionsTask
    >>> path = "jobs/evaluations/capitals.jsonl"
    >>> task = build_questions(QuestionsTask(task="questions", name="capitals", path=path, scorer="contains"))
    >>> task.questions[0].text, task.questions[0].expected
    ('What is the capital of France?', 'Paris')
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.evaluation.tasks.own.questions import build_questions

__all__ = ["build_questions"]

__getattr__ = lazily(__name__)
