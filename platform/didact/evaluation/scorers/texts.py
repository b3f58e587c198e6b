"""Texts compared with accepted answers: equal, a set of items, contained, found by a pattern."""

import json
import re
from functools import partial

import regex

from didact.errors import SpecError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, compared, judged, normalised, plain_signs
from didact.spec import ContainsScorer, ExactScorer, RegexScorer, SetScorer

_BETWEEN_ITEMS = re.compile(r"[\n,;、]|\s+(?:and|&)\s+")
_BETWEEN_NUMBERS = re.compile(r"[\n;、]|,(?!(?<=[0-9],)[0-9]{3}(?![0-9]))|\s+(?:and|&)\s+")
"""The same, where commas in numbers stand for thousands."""
_APART = re.compile(r",\s|[\n;、]|\s(?:and|&)\s")
_BULLET = re.compile(r"^\s*(?:[-*•·]\s+|\(?\d{1,3}[.)]\s+)")
_BRACKETS = ("[]", "{}", "()")
_CJK = r"\u2e80-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
# Between these and their neighbours there are no blanks.
_UNSPACED = re.compile(f"[{_CJK}]")
_LETTER = rf"[^\W_{_CJK}]"


def exact_scorer(spec: ExactScorer) -> NamedScorer:
    """Right when the text is an accepted answer, written in another way perhaps."""
    return NamedScorer(_exact, "exact, 3")


def set_scorer(spec: SetScorer) -> NamedScorer:
    """Right when the items of the text are the accepted ones."""
    return NamedScorer(partial(_set, spec.separator), "set, 3", same=partial(_one_order, spec.separator))


def contains_scorer(spec: ContainsScorer) -> NamedScorer:
    """Right when the text contains an accepted answer."""
    return NamedScorer(partial(_contains, spec), "contains, 3", same=None)


def regex_scorer(spec: RegexScorer) -> NamedScorer:
    """Right when a pattern finds an accepted answer.

    Raises:
        SpecError: the pattern cannot be read.
    """
    try:
        pattern = regex.compile(spec.pattern, regex.IGNORECASE if spec.ignore_case else 0)
    except regex.error as error:
        raise SpecError(f"scorer.pattern: {spec.pattern!r} is no pattern: {error}") from None
    return NamedScorer(partial(_regex, pattern, spec), "regex, 3", reads="last")


def _exact(question: Question, text: str) -> Score:
    found = compared(text)
    right = bool(found) and found in map(compared, accepted(question))
    return judged(right, (found if right else normalised(text)) or None)


def _set(separator: str | None, question: Question, text: str) -> Score:
    found = _items(text, separator)
    # Each answer of several is an item of its own, or some of them.
    aim = set(_items((separator or "\n").join(accepted(question)), separator))
    shared = len(set(found) & aim)
    precision, recall = shared / len(found) if found else 0.0, shared / len(aim) if aim else 0.0
    return judged(bool(aim) and set(found) == aim, ", ".join(sorted(found)) or None, precision=precision, recall=recall)


def _items(text: str, separator: str | None) -> dict[str, None]:
    """The items of a list in words, in order, each once; also of a JSON list, or in brackets."""
    text = plain_signs(text).strip()
    if separator is None and (listed := _json_items(text)) is not None:
        pieces = listed
    elif separator is not None:
        pieces = text.split(separator)
    else:
        inner = text.rstrip(".。")
        inner = inner[1:-1] if inner[:1] + inner[-1:] in _BRACKETS else text
        pieces = (_BETWEEN_NUMBERS if _APART.search(inner) else _BETWEEN_ITEMS).split(inner)
        if "、" in inner:  # the last two of such a list are joined by a word
            *pieces, last = pieces
            pieces += re.split("[和与及]", last, maxsplit=1)
    plain = (normalised(_BULLET.sub("", piece)).removeprefix("and ") for piece in pieces)
    return dict.fromkeys(item for item in plain if item)


def _json_items(text: str) -> list[str] | None:
    try:
        values = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or any(isinstance(each, list | dict) for each in values):
        return None
    return [each if isinstance(each, str) else json.dumps(each) for each in values]


def _one_order(separator: str | None, text: str) -> str:
    return "\n".join(sorted(_items(text, separator)))


def _contains(spec: ContainsScorer, question: Question, text: str) -> Score:
    plain, aims = normalised(text), [compared(each) for each in accepted(question)]
    found = [aim for aim in aims if aim and (_stands_in(aim, plain, spec.words) if normalised(aim) else aim in text)]
    right = len(found) == len(aims) > 0 if spec.all else bool(found)
    return judged(right, ", ".join(found) or plain or None)


def _stands_in(aim: str, text: str, words: bool) -> bool:
    if not words:
        return aim in text
    before = f"(?<!{_LETTER})" if re.match(_LETTER, aim) and not _UNSPACED.match(aim[0]) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, aim[-1]) and not _UNSPACED.match(aim[-1]) else ""
    # A number is no part of another one: 5 stands neither in 1.5 nor in -5, 3/5, 5,000, 5 000, 5:30 or 5^2.
    if re.match(r"[0-9]", aim):
        before += r"(?<![0-9][.,/^:])(?<!(?:^|[^\w)])[-\u2212]\s?)"
    elif re.match(r"[-\u2212.][0-9]", aim):
        before += r"(?<![\w)])"
    if re.match(r"[0-9]", aim[-1]):
        after += r"(?![.,/^:][0-9]|\s[0-9]{3}(?![0-9]))"
    if re.match(r"[0-9]+/", aim):  # nor is a fraction of a mixed number
        before += r"(?<![0-9]\s)"
    return regex.search(before + regex.escape(aim) + after, text) is not None


def _regex(pattern: "regex.Pattern[str]", spec: RegexScorer, question: Question, text: str) -> Score:
    try:
        found = [match[1 if pattern.groups else 0] for match in pattern.finditer(text, timeout=spec.seconds)]
    except TimeoutError:
        return Score(problem=f"the pattern was searched for longer than {spec.seconds:g} s; the text is not scored")
    taken = [each for each in found if each is not None]
    if not taken:
        return judged(False, None)
    answer = taken[0] if spec.take == "first" else taken[-1]
    aims = accepted(question)
    return judged(normalised(answer) in map(normalised, aims) if aims else True, answer)
