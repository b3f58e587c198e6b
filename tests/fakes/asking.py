"""A task asked in a small loop: every ask goes to a function, as a runner would send it to models."""

from collections.abc import Callable

from didact.evaluation.asks import Answer, Ask, Text
from didact.evaluation.questions import Question, Score, Task

Reply = str | Answer


def said(text: str, finish: str = "stop") -> Answer:
    """An answer of one text."""
    return Answer((Text(text, len(text), finish),))  # type: ignore[arg-type]


def asked(task: Task, question: Question, reply: Callable[[Ask], Reply]) -> tuple[Score, list[Ask]]:
    """The score of a question, and all that was asked for it."""
    answers: tuple[Answer, ...] = ()
    asks: list[Ask] = []
    while pending := task.asks(question, answers):
        asks += pending
        found = [reply(ask) for ask in pending]
        answers += tuple(said(each) if isinstance(each, str) else each for each in found)
    return task.score(question, answers), asks
