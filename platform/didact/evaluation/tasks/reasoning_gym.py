"""Freshly generated questions of `reasoning-gym`, which can score any answer to them."""

from functools import partial
from typing import Any

from didact.datasets import open_generator
from didact.datasets.conversation import Message
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.numbers import is_number, last_number
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import ReasoningGymTask

_FRESH_SEED = 1_000_003


def build_reasoning_gym(spec: ReasoningGymTask) -> TextTask:
    """Questions that no training seed gave.

    Raises:
        DataError: no such generator, or options that it refuses.
    """
    generator = open_generator(spec.name, spec.num_items, {"seed": _FRESH_SEED, **spec.options})
    entries = [generator[index] for index in range(spec.num_items)]
    questions = [
        Question(str(index), (Message("user", entry["question"]),), entry["answer"] or "", data=entry)
        for index, entry in enumerate(entries)
    ]
    return TextTask.of(spec.name, spec, questions, partial(_score, generator), "reasoning-gym, 1")


def _score(generator: Any, question: Question, text: str) -> Score:
    """Correct means a full score from the generator's own scorer."""
    entry = question.data
    expected = entry["answer"]
    numeric = expected is not None and is_number(expected)
    answer = last_number(text) if numeric else text.strip()
    try:
        correct = float(generator.score_answer(answer, entry)) == 1.0
    except (ArithmeticError, LookupError, TypeError, ValueError):
        correct = False  # some scorers parse the text and raise on anything of another form
    return Score({"accuracy": float(correct), "unread": float(not answer)}, extracted=answer or None)
