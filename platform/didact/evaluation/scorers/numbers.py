"""Numbers in a model's words: find the last one, and compare two as quantities."""

import re
from decimal import Decimal
from functools import partial

from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, judged
from didact.spec import NumberScorer

_ASCII_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\ufe63\uff0d", "-"))
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+"
_EXPONENT = r"(?:[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z]))?"
# A dash after a word, a digit or a bracket is a subtraction or a hyphen, not a sign: "10-3" ends in 3.
_NUMBER = re.compile(rf"(?:(?<![\w).])(-))?[$€£¥]?(?:(?<=[$€£¥])(-))?((?:{_DIGITS}){_EXPONENT})")


def last_number(text: str) -> str | None:
    """The last number in `text` as plain digits, or None where there is none.

    Reads `1,234` (as `1234`), `-5`, `$18`, `-$5`, `3.50`, `.5`, `1.5e-3`, a full stop after the number, `#### 18`, and
    the typographic minus signs. Leading and trailing zeros are kept.
    """
    found = list(_NUMBER.finditer(text.translate(_ASCII_MINUS)))
    return _plain(found[-1]) if found else None


def is_number(text: str) -> bool:
    """Whether `text` is one number and nothing else, currency sign and blanks aside."""
    return _quantity(text) is not None


def numbers_equal(a: str | None, b: str | None) -> bool:
    """Whether both texts are numbers of the same value (`3.50` and `3.5`, `1,000` and `1000`); None equals nothing."""
    quantity = _quantity(a)
    return quantity is not None and quantity == _quantity(b)


def _quantity(text: str | None) -> Decimal | None:
    match = _NUMBER.fullmatch((text or "").translate(_ASCII_MINUS).strip())
    return Decimal(_plain(match)) if match else None


def _plain(match: re.Match[str]) -> str:
    sign = "-" if match[1] or match[2] else ""
    return sign + match[3].replace(",", "")


def number_scorer(spec: NumberScorer) -> NamedScorer:
    """Right when the last number of the text is an accepted one."""
    return NamedScorer(partial(_score, Decimal(str(spec.tolerance))), "number, 1", reads="last", same=same_number)


def _score(tolerance: Decimal, question: Question, text: str) -> Score:
    found = last_number(text)
    return judged(any(_near(found, each, tolerance) for each in accepted(question)), found)


def _near(found: str | None, expected: str, tolerance: Decimal) -> bool:
    quantity, aim = _quantity(found), _quantity(expected)
    return quantity is not None and aim is not None and abs(quantity - aim) <= tolerance * abs(aim)


def same_number(number: str) -> str:
    """One writing for all writings of a quantity (`1,000.0` and `1e3`); other text stays as it is."""
    quantity = _quantity(number)
    return number if quantity is None else str(quantity.normalize() + 0)
