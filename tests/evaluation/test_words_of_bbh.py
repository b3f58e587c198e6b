"""Answers of BIG-bench Hard that are no option: numbers, words in order, brackets."""

import pytest

from didact.datasets.conversation import Message
from didact.evaluation.questions import Question
from didact.evaluation.tasks.bigbench import score_words


@pytest.mark.parametrize(
    ("text", "expected", "right"),
    [
        ("8", "8", 1),
        ("There are 8 objects", "8", 1),
        ("The answer is 8. I hope that this helps.", "8", 1),
        ("So the answer is **8**", "8", 1),
        ("\\boxed{8}", "8", 1),
        ("1,008", "1008", 1),
        ("-8", "8", 0),
        ("8 of 9", "8", 0),
        ("apple, banana, cherry", "apple banana cherry", 1),
        ("Apple banana cherry.", "apple banana cherry", 1),
        ("banana apple cherry", "apple banana cherry", 0),
        ("The answer is apple banana cherry", "apple banana cherry", 1),
        ("])", "] )", 1),
        ("] ) }", "] )", 0),
        ("no", "nobody", 0),
    ],
)
def test_words_and_numbers_are_read_where_they_stand(text: str, expected: str, right: float) -> None:
    score = score_words(Question("1", (Message("user", "?"),), expected), text)
    assert score.values["accuracy"] == right
    assert score.values["strict_accuracy"] <= right
