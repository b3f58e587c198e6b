"""GSM8K (Cobbe et al., 2021): word problems whose answer is a number, the last one of the text."""

import re

from didact.datasets.conversation import Message
from didact.datasets.places.hub import PREFIX
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.questions import Question
from didact.evaluation.scorers.numbers import is_number, number_scorer
from didact.evaluation.tasks.question_files import QuestionRow, read_questions
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import Gsm8kTask, NumberScorer

_CALCULATION = re.compile(r"<<[^<>]*>>")


def build_gsm8k(spec: Gsm8kTask) -> TextTask:
    """GSM8K from its JSON lines or from the hub.

    Raises:
        DataError: the file is missing or empty, or a row is not a GSM8K row; names file and line.
    """
    questions = read_questions("gsm8k", spec.path, _question).found
    of_the_hub = spec.path if spec.path.startswith(PREFIX) else None
    place = (spec.examples or of_the_hub) if spec.few_shot else None
    examples = read_questions("gsm8k", place, _question, split="train").found if place else ()
    return TextTask.of("gsm8k", spec, questions, number_scorer(NumberScorer(name="number")), examples=examples)


def _question(row: QuestionRow) -> Question:
    for key in ("question", "answer"):
        if not isinstance(row.record.get(key), str):
            raise BadRow("missing_field", f"{key!r} is {str(row.record.get(key))[:60]!r}, expected text")
    rationale, mark, tail = row.record["answer"].rpartition("####")
    expected = tail.strip()
    if not mark or not is_number(expected):
        raise BadRow("wrong_type", f"the answer ends in {row.record['answer'][-40:]!r}, expected a number after ####")
    steps = _CALCULATION.sub("", rationale).strip()
    turn = Message("user", row.record["question"])
    return Question(str(row.number - 1), (turn,), expected, rationale=steps)
