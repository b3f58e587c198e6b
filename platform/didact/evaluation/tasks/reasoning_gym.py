"""Freshly generated questions of `reasoning-gym`, which can score any answer to them."""

from functools import partial
from typing import Any

from didact.datasets import open_generator
from didact.datasets.conversation import Message
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.numbers import is_number, last_number, same_number
from didact.evaluation.scorers.scorer import NamedScorer
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import ReasoningGymTask

_FRESH_SEED = 1_000_003
_EXAMPLES_SEED = 2_000_003


def build_reasoning_gym(spec: ReasoningGymTask) -> TextTask:
    """Questions that no training seed gave, with examples that none of them are.

    Raises:
        DataError: no such generator, or options that it refuses.
    """
    generator, questions = _generated(spec, spec.num_items, {"seed": _FRESH_SEED, **spec.options})
    _, examples = _generated(spec, spec.few_shot, {**spec.options, "seed": _EXAMPLES_SEED})
    scorer = NamedScorer(partial(_score, generator), "reasoning-gym, 3", reads="last", same=same_number)
    return TextTask.of(spec.name, spec, questions, scorer, examples=[each for each in examples if each.expected])


def _generated(spec: ReasoningGymTask, count: int, options: dict[str, Any]) -> tuple[Any, list[Question]]:
    if not count:
        return None, []
    generator = open_generator(spec.name, count, options)
    entries = [generator[index] for index in range(count)]
    return generator, [
        Question(str(index), (Message("user", entry["question"]),), entry["answer"] or "", data=entry)
        for index, entry in enumerate(entries)
    ]


def _score(generator: Any, question: Question, text: str) -> Score:
    """Correct means a full score from the generator's own scorer."""
    entry = question.data
    expected = entry["answer"]
    # Its own scorers compare texts: only what they write as we read it is read so.
    numeric = expected is not None and last_number(expected) == expected.replace(",", "") and is_number(expected)
    answer = last_number(text) if numeric else text.strip()
    try:
        correct = float(generator.score_answer(answer, entry)) == 1.0
    except (ArithmeticError, LookupError, TypeError, ValueError):
        correct = False  # some scorers parse the text and raise on anything of another form
    return Score({"accuracy": float(correct), "unread": float(not answer)}, extracted=answer or None)
