"""Texts compared with accepted answers: equal, a set of items, contained, found by a pattern."""

import re
import unicodedata
from functools import partial

import regex

from didact.errors import SpecError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, judged, normalised
from didact.spec import ContainsScorer, ExactScorer, RegexScorer, SetScorer

_BETWEEN_ITEMS = re.compile(r"[\n,;、]|\s+and\s+")
_BULLET = re.compile(r"^\s*(?:[-*•·]\s+|\(?\d{1,3}[.)]\s+)")
_LETTER = r"[^\W_]"
# Between these and their neighbours there are no blanks.
_UNSPACED = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")


def exact_scorer(spec: ExactScorer) -> NamedScorer:
    """Right when the text is an accepted answer, written in another way perhaps."""
    return NamedScorer(_exact, "exact, 1")


def set_scorer(spec: SetScorer) -> NamedScorer:
    """Right when the items of the text are the accepted ones."""
    return NamedScorer(partial(_set, spec.separator), "set, 1", same=partial(_one_order, spec.separator))


def contains_scorer(spec: ContainsScorer) -> NamedScorer:
    """Right when the text contains an accepted answer."""
    return NamedScorer(partial(_contains, spec), "contains, 1")


def regex_scorer(spec: RegexScorer) -> NamedScorer:
    """Right when a pattern finds an accepted answer.

    Raises:
        SpecError: the pattern cannot be read.
    """
    try:
        pattern = regex.compile(spec.pattern, regex.IGNORECASE if spec.ignore_case else 0)
    except regex.error as error:
        raise SpecError(f"scorer.pattern: {spec.pattern!r} is no pattern: {error}") from None
    return NamedScorer(partial(_regex, pattern, spec), "regex, 1", reads="last")


def _exact(question: Question, text: str) -> Score:
    found = normalised(text)
    return judged(bool(found) and found in map(normalised, accepted(question)), found or None)


def _set(separator: str | None, question: Question, text: str) -> Score:
    found = _items(text, separator)
    aim = {item for answer in accepted(question) for item in _items(answer, separator)}
    shared = len(set(found) & aim)
    precision, recall = shared / len(found) if found else 0.0, shared / len(aim) if aim else 0.0
    return judged(set(found) == aim, ", ".join(sorted(found)) or None, precision=precision, recall=recall)


def _items(text: str, separator: str | None) -> dict[str, None]:
    """The items of a list in words, in order, each once."""
    text = unicodedata.normalize("NFKC", text)
    pieces = text.split(separator) if separator else _BETWEEN_ITEMS.split(text)
    plain = (normalised(_BULLET.sub("", piece)).removeprefix("and ") for piece in pieces)
    return dict.fromkeys(item for item in plain if item)


def _one_order(separator: str | None, text: str) -> str:
    return "\n".join(sorted(_items(text, separator)))


def _contains(spec: ContainsScorer, question: Question, text: str) -> Score:
    plain, aims = normalised(text), [normalised(each) for each in accepted(question)]
    found = [aim for aim in aims if aim and _stands_in(aim, plain, spec.words)]
    right = len(found) == len(aims) > 0 if spec.all else bool(found)
    return judged(right, ", ".join(found) or plain or None)


def _stands_in(aim: str, text: str, words: bool) -> bool:
    if not words:
        return aim in text
    before = f"(?<!{_LETTER})" if re.match(_LETTER, aim) and not _UNSPACED.match(aim[0]) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, aim[-1]) and not _UNSPACED.match(aim[-1]) else ""
    return re.search(before + re.escape(aim) + after, text) is not None


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
