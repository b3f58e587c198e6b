"""What a scorer is, and what all of them compare with."""

import re
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

_QUOTES = ("\u201c\u201d", "\u2018\u2019", "\u00ab\u00bb", "\u300c\u300d", "\u300e\u300f")
_PAIRS = (*(mark * 2 for mark in "\"'*`_"), *_QUOTES)
"""Quotes and marks of emphasis, which go where both are there: `f'` and `A*` keep theirs."""
_CLOSING = ".,;:!?\u2026\u3002\u3001"
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+", strict=True))
# "Q.E.D." begins no question.
_NEXT_QUESTION = re.compile(
    r"(?<=\S)\s*\n[ \t]*(?:question|q|题目|问题)[ \t]*\d*[ \t]*(?:[:\uff1a]|\.(?=\s))", re.IGNORECASE
)
_TYPOGRAPHIC = str.maketrans("\u2018\u2019\u02bc\u2010\u2011\u2212", "'''---")
_FACTORIAL = re.compile(r"(?:.*[0-9)]|.)!")


def plain_signs(text: str) -> str:
    """A text in which letters and digits of other widths are plain (NFKC); raised digits become powers, `10^2`.

    Apostrophes, hyphens and minus signs of typographers are those of keyboards.
    """
    if text.isascii():
        return text
    raised = re.sub(f"[{''.join(_RAISED)}]+", lambda each: "^" + "".join(_RAISED[one] for one in each[0]), text)
    # NFKC would make 11/2 of the mixed number 1 1/2 in two characters.
    apart = "".join(f" {one}" if unicodedata.decomposition(one).startswith("<fraction>") else one for one in raised)
    return unicodedata.normalize("NFKC", apart).translate(_TYPOGRAPHIC)


def normalised(text: str) -> str:
    """A text without what makes no difference: width (NFKC) and case of letters, runs of blanks, marks around it.

    The mark of a factorial (`5!`) is no exclamation.
    """
    plain = " ".join(plain_signs(text).casefold().split())
    before = None
    while before != plain:
        before = plain
        if len(plain) > 1 and plain[0] + plain[-1] in _PAIRS:
            plain = plain[1:-1].strip()
        elif plain[-1:] in _CLOSING and not _FACTORIAL.fullmatch(plain):
            plain = plain[:-1].rstrip()
    return plain


def compared(text: str) -> str:
    """The `normalised` text; of marks alone, such as `?`, these."""
    return normalised(text) or text.strip()


def before_next_question(text: str) -> str:
    """What a model answered before it went on with a question of its own."""
    return _NEXT_QUESTION.split(text, maxsplit=1)[0]


@dataclass(frozen=True, slots=True)
class NamedScorer:
    """A scorer with what others must know of it."""

    score: Scorer
    version: str
    """Name, number and whatever else decides its figures; another one where it judges otherwise."""
    metric: str = "accuracy"
    """The one of its values that says whether an answer is right, or how good it is."""
    reads: Reads = "answer"
    same: Callable[[str], str] | None = normalised
    """Answers that it read count as the same one, in a vote, where this makes the same text of them; None where answers
    are no such thing (programs, free texts), and no vote is possible."""


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
