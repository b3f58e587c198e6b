"""A scorer asked about one text, as an answer to a row."""

from typing import Any

from didact.datasets.conversation import Message
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers import build_scorer


def question(*answers: str, **row: Any) -> Question:
    return Question("1", (Message("user", "?"),), answers[0] if answers else "", data={"answers": list(answers), **row})


def score(scorer: Any, text: str, *answers: str, **row: Any) -> Score:
    return build_scorer(scorer).score(question(*answers, **row), text)
