"""GSM8K (Cobbe et al., 2021): word problems whose answer is a number, the last one of the text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from didact.datasets import open_hub
from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.numbers import is_number, last_number, numbers_equal
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import Gsm8kTask

_HUB = "hf:"


def build_gsm8k(spec: Gsm8kTask) -> TextTask:
    """GSM8K from its JSON lines or from the hub.

    Raises:
        DataError: the file is missing or empty, or a line is not a GSM8K row; names file and line.
    """
    questions = [_question(number, row, place) for number, (row, place) in enumerate(_rows(spec.path))]
    if not questions:
        raise DataError(f"{spec.path} holds no rows; expected JSON lines with question and answer")
    return TextTask.of("gsm8k", spec, questions, score_last_number, "last number, 1")


def score_last_number(question: Question, text: str) -> Score:
    """Right when the last number of the text equals the expected one."""
    found = last_number(text)
    values = {"accuracy": float(numbers_equal(found, question.expected)), "unread": float(found is None)}
    return Score(values, extracted=found)


def _rows(path: str) -> Iterator[tuple[Any, str]]:
    """Rows, each with the place to name in errors."""
    if path.startswith(_HUB):
        for index, row in enumerate(open_hub(path, split="test", revision=None)):
            yield row, f"{path}, row {index}"
        return
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path} is not a file; expected GSM8K's JSON lines, or hf:openai/gsm8k:main")
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                yield json.loads(line.decode("utf-8")), place
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise DataError(f"{place}: {error}; expected a JSON object with question and answer") from error


def _question(number: int, row: Any, place: str) -> Question:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer")):
        raise DataError(f"{place}: found {str(row)[:80]!r}; expected an object with texts question and answer")
    rationale, mark, tail = row["answer"].rpartition("####")
    expected = tail.strip()
    if not mark or not is_number(expected):
        raise DataError(f"{place}: answer ends in {row['answer'][-40:]!r}; expected a number after ####")
    return Question(str(number), (Message("user", row["question"]),), expected, rationale=rationale.strip())
