"""How many words a text shares with an accepted answer: SQuAD's F1, and ROUGE.

Chinese, Japanese and Korean characters count as words, since nothing stands between these.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer, accepted, compared, plain_signs
from didact.spec import F1Scorer, RougeScorer

_ARTICLES = frozenset(("a", "an", "the"))
_UNSPACED = "\u2e80-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(rf"[(\"']*([-\u2212])?[$€£¥]?({_DIGITS})%?[)\"'.,;:!?]*")
_ROUGE_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_ROUGES = ("rouge1", "rouge2", "rougeL")
_STEMMED_FROM = 4
"""Letters of the shortest word whose ending is cut off, as in ROUGE-1.5.5."""


def f1_scorer(spec: F1Scorer) -> NamedScorer:
    """F1 over words and exact match, as in SQuAD (Rajpurkar et al., 2016), with the best accepted answer."""
    return NamedScorer(_f1, "f1, 3", metric="f1", same=None)


def rouge_scorer(spec: RougeScorer) -> NamedScorer:
    """ROUGE (Lin, 2004) by the package rouge-score, with the accepted answer of the best ROUGE-L."""

    def score(question: Question, text: str) -> Score:
        measured = [_rouge(spec.stemmer).score(aim, text) for aim in accepted(question)]
        if not measured:
            return Score(problem="the row has no answer to compare with")
        best = max(measured, key=lambda each: each["rougeL"].fmeasure)
        values = {name: float(best[name].fmeasure) for name in _ROUGES}
        return Score({**values, "unread": float(not text.strip())}, text.strip() or None)

    return NamedScorer(score, "rouge-score 0.1.2, 1", metric="rougeL", same=None)


def _f1(question: Question, text: str) -> Score:
    aims = accepted(question)
    if not aims:
        return Score(problem="the row has no answer to compare with")
    # An answer that has no word for SQuAD, as the article `A` or a sign, is compared as it stands.
    found, *wanted = (squad_words(each) or [compared(each)] for each in (text, *aims))
    f1 = max(shared_words(found, aim) for aim in wanted)
    exact = found in wanted
    return Score({"f1": f1, "accuracy": float(exact), "unread": float(not text.strip())}, text.strip() or None)


def squad_words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation and articles.

    A number keeps its sign and its point, and has one writing, as in DROP (Dua et al., 2019): SQuAD's own way makes
    `5` of `-5`, and `15` of `1.5`.
    """
    lower = plain_signs(text).lower()
    pieces = [_number(piece) or _without_marks(piece) for piece in lower.split()]
    return [word for word in _WORD.findall(" ".join(pieces)) if word not in _ARTICLES]


def _number(piece: str) -> str | None:
    found = _NUMBER.fullmatch(piece)
    if not found:
        return None
    value = Decimal(found[2].replace(",", "")).normalize()
    return f"{'-' if found[1] else ''}{value:f}" if value else "0"


def _without_marks(piece: str) -> str:
    marks = string.punctuation.replace("^", "")
    return "".join(mark for mark in piece if mark not in marks and unicodedata.category(mark)[0] != "P")


def shared_words(found: Sequence[str], aim: Sequence[str]) -> float:
    """Harmonic mean of the shares of `found` and of `aim` that both have; 1 where both are empty, 0 where one is."""
    if not found or not aim:
        return float(found == aim)
    shared = sum((Counter(found) & Counter(aim)).values())
    return 2 * shared / (len(found) + len(aim))


class _Words:
    """Takes texts apart for rouge-score, whose own way knows the letters of English alone."""

    def __init__(self, stemmer: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem = PorterStemmer().stem if stemmer else None

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case; endings cut off where that is wanted."""
        words = _ROUGE_WORD.findall(unicodedata.normalize("NFKC", text).lower())
        if self._stem is None:
            return words
        return [self._stem(word) if len(word) >= _STEMMED_FROM else word for word in words]


@cache
def _rouge(stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer as Rouge  # brings nltk, which takes a second

    return Rouge(list(_ROUGES), tokenizer=_Words(stemmer))
