"""What a scorer is, and what all of them compare with."""

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from didact.evaluation.questions import Question, Score

Scorer = Callable[[Question, str], Score]
"""What a text is worth as an answer to a question."""

Reads = Literal["answer", "last", "whole"]
"""What a scorer takes a text for: the `answer` and nothing else; words whose `last` fitting part is the answer; or a
`whole` in which it finds its answer wherever it stands, such as a block of code."""

_OPENING = "\"'*`\u201c\u2018\u00ab\u300c\u300e"
_CLOSING = ".,;:!?\"'*`\u2026\u3002\u3001\u201d\u2019\u00bb\u300d\u300f"


def normalised(text: str) -> str:
    """A text without what makes no difference: width (NFKC) and case of letters, runs of blanks, marks at its ends."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    before = None
    while before != plain:
        before = plain
        plain = plain.lstrip(_OPENING).rstrip(_CLOSING).strip()
    return plain


@dataclass(frozen=True, slots=True)
class NamedScorer:
    """A scorer with what others must know of it."""

    score: Scorer
    version: str
    """Name, number and whatever else decides its figures; another one where it judges otherwise."""
    metric: str = "accuracy"
    """The one of its values that says whether an answer is right, or how good it is."""
    reads: Reads = "answer"
    same: Callable[[str], str] = normalised
    """Answers that it read count as the same one, in a vote, where this makes the same text of them."""


def accepted(question: Question) -> tuple[str, ...]:
    """The answers that count as right: `answers` of the question's data, else what is expected, if anything."""
    if isinstance(question.data, Mapping) and isinstance(question.data.get("answers"), list | tuple):
        return tuple(str(each) for each in question.data["answers"])
    return (question.expected,) if question.expected else ()


def field_of(question: Question, name: str) -> object:
    """A field of the row that a question comes from; None where it has none of that name."""
    return question.data.get(name) if isinstance(question.data, Mapping) else None


def judged(right: bool, extracted: str | None, **more: float) -> Score:
    """The score of an answer that is right or wrong.

    Args:
        right: whether it is.
        extracted: what was read; None where nothing could be read.
        more: further values.
    """
    return Score({"accuracy": float(right), **more, "unread": float(extracted is None)}, extracted)
