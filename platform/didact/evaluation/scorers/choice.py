"""Which option of a multiple choice a text names, and which one likelihoods prefer.

Two readers of texts: the strict one takes the form that was asked for and nothing else, the lenient one also what
people understand. What cannot be read is counted as `unread`.
"""

# ruff: noqa: RUF001, RUF002 - Chinese text has Chinese punctuation.
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from didact.datasets.quality.texts import normalise
from didact.evaluation.asks import Likely
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.scorer import NamedScorer
from didact.spec import ChoiceScorer

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NEXT_QUESTION = re.compile(r"\n\s*(?:question|q|题目|问题)\s*\d*\s*[:.]", re.IGNORECASE)
_STATEMENT = re.compile(
    r"\b(?:answer|choice|option)s?(?:\s+(?:choice|option))?\s*(?:(?:is|are|was|(?:would|must|should|will)\s+be)\b\s*:?|:)"
    r"(?:\s*(?:the\s+)?(?:option|choice|letter)s?\b)?"
    r"|(?:答案|正确(?:的)?(?:选项|序号))(?:的?(?:序号|选项))?(?:应该|应当|应)?(?:是|为|选择?|:)+(?:选项)?"
    r"|(?<![不未])选择?(?:选项)?\s*:?",
    re.IGNORECASE,
)
_OPENING = re.compile(r"[\s\"'*_`#>-]*(?:(?:option|choice|letter)\b|选项)?", re.IGNORECASE)
_MARKUP = r"[\s\"'*_`$]*(?:\\(?:boxed|text|mathrm)\s*\{)*[\s\"'*_`({\[]*"
_BETWEEN = r"(?:\s*(?:[,、;/&+]|和|与|及|或|\band\b|\bor\b)\s*)?"
_NOT_BEHIND = r"(?!\s+(?:is|are)\s+(?:not|wrong|incorrect|false)\b)(?!\s+(?!(?:because|since|as|is|for|due)\b)[a-z])"
"""Behind a letter that is an answer there is neither its denial nor a sentence that goes on, as behind an article."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be answered."""

    labels: tuple[str, ...]
    """Letters, or the words themselves, such as Yes and No."""
    texts: tuple[str, ...] = ()
    """What each letter stands for; empty where labels are words."""
    several: bool = False
    """Whether more than one may be right: an answer is a set, written as its letters in order."""

    @property
    def lettered(self) -> bool:
        """Whether labels are letters."""
        return all(len(label) == 1 for label in self.labels)


def choice_scorer(spec: ChoiceScorer) -> NamedScorer:
    """Right when the text names the right options of a row, whose answer is a letter, a number from 0 or a text."""
    return NamedScorer(partial(_score_row, spec.several), "choice, 1", reads="whole", same=str)


def score_choice(question: Question, text: str) -> Score:
    """What a written answer is worth to a question whose `data` are `Options`.

    `accuracy` and `unread` are of the lenient reader, `strict_accuracy` and `strict_unread` of the strict one.
    """
    options: Options = question.data
    strict, lenient = read_strictly(text, options), read_leniently(text, options)
    values = {
        "accuracy": float(lenient == question.expected),
        "unread": float(lenient is None),
        "strict_accuracy": float(strict == question.expected),
        "strict_unread": float(strict is None),
    }
    return Score(values, lenient, note="" if lenient is not None else _why_unread(text, options))


def label_of(answer: str | int, texts: Sequence[str]) -> str:
    """The letter of an option that is given by letter, by its number from 0, or by its text; empty where it is none."""
    letters = LETTERS[: len(texts)]
    if isinstance(answer, int) or (answer.isdigit() and answer not in texts):
        return letters[int(answer)] if 0 <= int(answer) < len(letters) else ""
    letter = unicodedata.normalize("NFKC", answer).strip(" ().").upper()
    return letter if letter and letter in letters else dict(zip(texts, letters, strict=True)).get(answer, "")


def letters_of(answer: str, texts: Sequence[str]) -> str:
    """The set of letters in a key, in order; empty where it is no set of letters, or none of them is an option.

    Full-width and small letters, letters twice or in another order, marks and line breaks between them, and letters of
    which there is no option make no difference.
    """
    key = re.sub(r"[\s,、;/.。]+", "", unicodedata.normalize("NFKC", answer)).upper()
    return "".join(each for each in LETTERS[: len(texts)] if each in key) if re.fullmatch("[A-Z]+", key) else ""


def read_strictly(text: str, options: Options) -> str | None:
    """The option in the form that is asked for: the label alone, or a last line `Answer: LABEL` (`答案：LABEL`).

    A further question, and what follows it, is not read.
    """
    return _read_form(_own_part(text), options)


def read_leniently(text: str, options: Options) -> str | None:
    """The option that a reader would understand, or None: none is named, or not one alone.

    In this order: what the text states (`the answer is (B)`, `答案：B`, `故选B`), by letter or in the option's own
    words; what it begins with; the one letter in brackets; the one option whose text it repeats; the one capital
    letter that stands alone. Of several statements the last one counts. A further question, and what follows it, is
    not read.
    """
    plain = _own_part(text)
    if not options.lettered:
        return _read_form(plain, options) or _read_word(plain, options)
    if (formed := _read_form(plain, options) or _read_form(plain.upper(), options)) is not None:
        return formed
    patterns = _patterns("".join(options.labels))
    for said in reversed(list(_STATEMENT.finditer(plain))):
        rest = plain[said.end() :]
        found = patterns.stated.match(rest)
        named = _label(found["capital"] or found["small"], options) if found else _text_at_beginning(rest, options)
        if named is not None:
            return named
    opening = _OPENING.match(plain)
    begins = patterns.begins.match(plain, opening.end() if opening else 0)
    if begins is not None and (named := _label(begins[1], options)) is not None:
        return named
    return (
        _only({_label(each, options) for each in patterns.bracketed.findall(plain)})
        or _only(_repeated(plain, options))
        or _only({_label(each, options) for each in patterns.alone.findall(plain)})
    )


def score_likelihoods(question: Question, likely: Sequence[Likely], sizes: Sequence[int] | None = None) -> Score:
    """What the likelihoods of a question's options are worth.

    Args:
        question: its `expected` is one of `candidates(question.data)`.
        likely: of each of these, in order.
        sizes: divide each log-likelihood by so much to choose among texts of different length; None: by nothing, as
            for letters. `accuracy` is then of the divided ones, `undivided_accuracy` of the others.

    Returns:
        Also `confidence`, the probability of the option that was chosen among all of them, and `loss`, minus the
        log-probability of the right one (nats).
    """
    labels = candidates(question.data)
    sums = [each.log_likelihood for each in likely]
    if len(sums) != len(labels) or not all(map(math.isfinite, sums)):
        return Score(problem=f"{len(labels)} options, and their log-likelihoods are {sums}")
    per_size = sums if sizes is None else [each / size for each, size in zip(sums, sizes, strict=True)]
    chosen, right = per_size.index(max(per_size)), labels.index(question.expected)
    most = max(sums)
    total = most + math.log(sum(math.exp(each - most) for each in sums))
    values = {
        "accuracy": float(chosen == right),
        "confidence": math.exp(sums[chosen] - total),
        "loss": total - sums[right],
    }
    if sizes is not None:
        values["undivided_accuracy"] = float(sums.index(most) == right)
    return Score(values, labels[chosen])


def candidates(options: Options) -> tuple[str, ...]:
    """Every answer there can be: the labels, or all sets of letters where several may be right."""
    if not options.several:
        return options.labels
    sets = range(1, 2 ** len(options.labels))
    return tuple("".join(label for place, label in enumerate(options.labels) if each >> place & 1) for each in sets)


def _score_row(several: bool, question: Question, text: str) -> Score:
    texts = question.options
    right = letters_of(question.expected, texts) if several else label_of(question.expected, texts)
    if not right:
        return Score(problem=f"the answer {question.expected!r} is none of {len(texts)} options")
    options = Options(tuple(LETTERS[: len(texts)]), texts, several)
    return score_choice(replace(question, expected=right, data=options), text)


def _own_part(text: str) -> str:
    """What the model answered before it went on with a question of its own; full-width signs as plain ones."""
    return _NEXT_QUESTION.split(unicodedata.normalize("NFKC", text).strip(), maxsplit=1)[0].strip()


def _read_form(plain: str, options: Options) -> str | None:
    lines = plain.splitlines()
    one = "(?:" + "|".join(map(re.escape, options.labels)) + ")"
    whole = rf"[(\[]?({one}(?:[,、 ]*{one})*)[)\]]?[.。]?"
    flags = 0 if options.lettered else re.IGNORECASE
    found = re.fullmatch(whole, plain, flags) if len(lines) == 1 else None
    found = found or re.fullmatch(rf"(?:Answer|答案)\s*:\s*{whole}", lines[-1].strip() if lines else "", flags)
    return _label(found[1], options) if found else None


@dataclass(frozen=True, slots=True)
class _Patterns:
    stated: re.Pattern[str]
    begins: re.Pattern[str]
    bracketed: re.Pattern[str]
    alone: re.Pattern[str]


@lru_cache(maxsize=32)
def _patterns(letters: str) -> _Patterns:
    """How letters stand in texts: one, or several with or without marks between them."""
    capital, small = f"[{letters}]", f"[{letters.lower()}]"
    left, right = "(?<![A-Za-z0-9])", "(?![A-Za-z0-9'’])"
    capitals, smalls = (f"{each}(?:{_BETWEEN}{each})*" for each in (capital, small))
    return _Patterns(
        stated=re.compile(rf"{_MARKUP}(?:(?P<capital>{capitals}){right}|(?P<small>{smalls}){right}(?!\s+[a-z]))"),
        begins=re.compile(rf"{_MARKUP}({capitals}){right}{_NOT_BEHIND}"),
        bracketed=re.compile(rf"(?:[(\[]|\*\*)\s*({capitals}|{smalls})\s*(?:[)\]]|\*\*)"),
        alone=re.compile(rf"(?<!not )(?<!不是){left}({capitals}){right}{_NOT_BEHIND}"),
    )


def _label(found: str, options: Options) -> str | None:
    """Letters, or a word in any case, as a label; None where only one may be right and several are named."""
    if not options.lettered:
        return next((label for label in options.labels if label.casefold() == found.casefold()), None)
    if re.search(r"\bor\b|或", found):
        return None
    letters = sorted(set(re.sub(r"\band\b", "", found).upper()) & set(options.labels))
    return "".join(letters) if len(letters) == 1 or options.several else None


def _only(found: set[str | None]) -> str | None:
    return next(iter(found)) if len(found) == 1 else None


def _text_at_beginning(rest: str, options: Options) -> str | None:
    """The option whose text stands right there; the longest where one begins another."""
    plain = normalise(rest).lstrip(" \"'*_`$")
    found = [(len(text), label) for label, text in _texts(options) if re.match(_as_words(text), plain)]
    return max(found)[1] if found else None


def _repeated(plain: str, options: Options) -> set[str | None]:
    """Options whose texts are repeated; all that the text holds where several may be right."""
    left = normalise(plain)
    found: set[str | None] = set()
    for label, text in sorted(_texts(options), key=lambda each: -len(each[1])):
        if re.search(_as_words(text), left):
            found.add(label)
            left = re.sub(_as_words(text), " ", left)  # what it holds of shorter options is said by this one
    if options.several and 0 < len(found) < len(options.labels):
        return {"".join(sorted(str(label) for label in found))}
    return found


def _texts(options: Options) -> list[tuple[str, str]]:
    texts = [normalise(text).rstrip(" .。") for text in options.texts]
    return [(label, text) for label, text in zip(options.labels, texts, strict=True) if text]


def _as_words(text: str) -> str:
    return rf"(?<![a-z0-9]){re.escape(text)}(?![a-z0-9])"


def _read_word(plain: str, options: Options) -> str | None:
    """What is stated, or begins a sentence (the last one counts), or is the one long word among the labels named."""
    word = "(" + "|".join(map(re.escape, sorted(options.labels, key=len, reverse=True))) + r")(?![A-Za-z0-9])"
    for said in reversed(list(_STATEMENT.finditer(plain))):
        if found := re.match(_MARKUP + word, plain[said.end() :], re.IGNORECASE):
            return _label(found[1], options)
    opening = r"(?:^|[.!?:。！？]\s*|\n)[\s\"'*_`(]*(?:(?:so|thus|therefore|hence)\b[\s,]*)?"
    if begun := re.findall(opening + word, plain, re.IGNORECASE):
        return _label(begun[-1], options)
    mentioned = re.findall(rf"(?<![A-Za-z0-9]){word}", plain, re.IGNORECASE)
    return _only({_label(each, options) for each in mentioned if len(each) > len("yes")})


def _why_unread(text: str, options: Options) -> str:
    if not text.strip():
        return "the answer is empty"
    beyond = re.findall(r"(?<![A-Za-z0-9])([A-Z])(?![A-Za-z0-9'’])", unicodedata.normalize("NFKC", text))
    others = sorted(set(beyond) - set(options.labels) - {"I"})
    named = f"; it names {', '.join(others)}" if options.lettered and others else ""
    return f"none of {', '.join(options.labels)} could be read, or not one alone{named}"
