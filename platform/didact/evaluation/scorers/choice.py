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
from didact.evaluation.scorers.denials import own_list, without_denied
from didact.evaluation.scorers.options import LETTERS, Options, candidates, key_of
from didact.evaluation.scorers.scorer import NamedScorer, accepted, before_next_question
from didact.spec import ChoiceScorer

CHOICE_VERSION = "choice, 6"
"""Goes up whenever the same text may be read otherwise; reports of another version are not compared."""
_STATEMENT = re.compile(
    r"\b(?:answer|choice|option)s?(?:\s+(?:choice|option))?\s*(?:(?:is|are|was|(?:would|must|should|will)\s+be)\b\s*:?|:)"
    r"(?:\s*(?:the\s+)?(?:option|choice|letter)s?\b)?"
    r"|\bI(?:['’]d|['’]ll|\s+would|\s+will)?\s+(?:choose|pick|select|go\s+with|say)\b"
    r"(?:\s+(?:the\s+)?(?:option|choice|letter)\b)?"
    r"|(?:答案|正确(?:的)?(?:选项|序号))(?:的?(?:序号|选项))?(?:应该|应当|应)?(?:是|为|选择?|:)+(?:选项)?"
    r"|(?<![不未])选择?(?:选项)?\s*:?",
    re.IGNORECASE,
)
_OPENING = re.compile(r"[\s\"'*_`#>-]*(?:(?:option|choice|letter)\b|选项)?", re.IGNORECASE)
_MARKUP = r"[\s\"'*_`$]{0,16}(?:\\(?:boxed|text|mathrm)\s{0,16}\{){0,4}[\s\"'*_`({\[]{0,16}"
_BETWEEN = r"(?:\s*(?:[,、;/&+]|和|与|及|或|\band\b|\bor\b)\s*)?"
_NOT_BEHIND = r"(?!\s+(?!(?:because|since|as|is|for|due)\b)[a-z])"
"""Behind a letter that is an answer no sentence goes on, as behind an article."""
_LISTS = re.compile(r"options|choices|选项", re.IGNORECASE)
_AFTER_LETTER = re.compile(r"[*_\"']*\s*[).\]:、][\s\"'*_`$]*")
"""Between an option's letter and its words."""


def choice_scorer(spec: ChoiceScorer) -> NamedScorer:
    """Right when the text names the right options of a row, whose answer is a letter, a number from 0 or a text."""
    return NamedScorer(partial(_score_row, spec), CHOICE_VERSION, reads="whole", same=str)


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


def read_strictly(text: str, options: Options) -> str | None:
    """The option in the form that is asked for: the label alone, or a last line `Answer: LABEL` (`答案：LABEL`).

    A further question, and what follows it, is not read.
    """
    return _read_form(_own_part(text), options)


def read_leniently(text: str, options: Options) -> str | None:
    """The option that a reader would understand, or None: none is named, or not one alone.

    In this order: what the text states (`the answer is (B)`, `答案：B`, `故选B`), by letter or in the option's own
    words; what it begins with; the one letter in brackets; the one option whose text it repeats; the one capital
    letter that stands alone. Of several statements the last one counts. What the text denies (`it isn't A`, `A不对`)
    counts as not said, and so does the question's own list of options. A letter with the words of another option
    (`A. London`, where that is B) names neither. A further question, and what follows it, is not read.
    """
    plain = _own_part(text)
    if not options.lettered:
        return _read_form(plain, options) or _read_word(without_denied(plain, options.labels), options)
    if (formed := _read_form(plain, options) or _read_form(plain.upper(), options)) is not None:
        return formed
    said = without_denied(plain, options.labels)
    listed = own_list(said, options.labels, least=len(options.labels) if options.several else 2)
    if (stated := _stated(said, listed, options)) is not None:
        return stated or None
    left = said if listed is None else said[: listed[0]] + " " + _behind_list(said[listed[1] :], options)
    opening, patterns = _OPENING.match(left), _patterns("".join(options.labels))
    if options.several and len(items := set(patterns.items.findall(left))) > 1:
        return "".join(sorted(items))
    begins = patterns.begins.match(left, opening.end() if opening else 0)
    if begins is not None and (named := _label(begins[1], options)) is not None:
        return named if _has_own_words(named, left[begins.end() :], options) else None
    return (
        _only({_label(each, options) for each in patterns.bracketed.findall(left)})
        or _only(_repeated(left if listed is None else plain, options))
        or _only({_label(each, options) for each in patterns.alone.findall(left)})
    )


def _stated(said: str, listed: tuple[int, int] | None, options: Options) -> str | None:
    """The last statement; the beginning of the question's own list is none. Empty where it contradicts itself."""
    patterns, whole = _patterns("".join(options.labels)), listed is not None and _is_whole(said, listed, options)
    for statement in reversed(list(_STATEMENT.finditer(said))):
        rest = said[statement.end() :]
        found = patterns.stated.match(rest)
        if found and listed is not None and listed[0] <= statement.end() + found.end() - 1 < listed[1]:
            first = said.find(options.labels[0], listed[0])
            if statement.end() + found.end() - 1 == first and (whole or _LISTS.search(statement[0])):
                continue
        named = _label(found["capital"] or found["small"], options) if found else _text_at_beginning(rest, options)
        if named is not None:
            return named if not found or _has_own_words(named, rest[found.end() :], options) else ""
    return None


def _has_own_words(label: str, behind: str, options: Options) -> bool:
    """Whether what follows a letter, as its words do in a list of options, is not another option's words."""
    mark = _AFTER_LETTER.match(behind)
    if mark is None or len(label) > 1:
        return True
    return _text_at_beginning(behind[mark.end() :], options) in (None, label)


def _is_whole(said: str, listed: tuple[int, int], options: Options) -> bool:
    return own_list(said[listed[0] : listed[1]], options.labels, least=len(options.labels)) is not None


def _behind_list(rest: str, options: Options) -> str:
    """What follows a list of options: without the last one's own words."""
    plain = rest.lstrip()
    for text in sorted(options.texts, key=len, reverse=True):
        own = unicodedata.normalize("NFKC", text).strip()
        if own and plain.casefold().startswith(own.casefold()):
            return plain[len(own) :]
    return rest


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


def _score_row(spec: ChoiceScorer, question: Question, text: str) -> Score:
    texts = question.options
    try:
        right = key_of(accepted(question), texts, spec.several, spec.key)
    except ValueError as error:
        return Score(problem=str(error))
    if not right:
        return Score(problem="the row has no answer")
    options = Options(tuple(LETTERS[: len(texts)]), texts, spec.several)
    return score_choice(replace(question, expected=right, data=options), text)


def _own_part(text: str) -> str:
    """What the model answered before it went on with a question of its own; full-width signs as plain ones."""
    return before_next_question(unicodedata.normalize("NFKC", text).strip()).strip()


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
    items: re.Pattern[str]


@lru_cache(maxsize=32)
def _patterns(letters: str) -> _Patterns:
    """How letters stand in texts: one, or several with or without marks between them."""
    capital, small = f"[{letters}]", f"[{letters.lower()}]"
    left, right = "(?<![A-Za-z0-9])", "(?![A-Za-z0-9'’])"
    capitals, smalls = (f"{each}(?:{_BETWEEN}{each}){{0,26}}" for each in (capital, small))
    return _Patterns(
        stated=re.compile(rf"{_MARKUP}(?:(?P<capital>{capitals}){right}|(?P<small>{smalls}){right}(?!\s+[a-z]))"),
        begins=re.compile(rf"{_MARKUP}({capitals}){right}{_NOT_BEHIND}"),
        bracketed=re.compile(rf"(?:[(\[]|\*\*)\s*({capitals}|{smalls})\s*(?:[)\]]|\*\*)"),
        items=re.compile(rf"^[^\S\n]*[(\[*]*({capital})\s*[).\]:、]", re.MULTILINE),
        alone=re.compile(rf"{left}({capitals}){right}{_NOT_BEHIND}"),
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
    texts = sorted(_texts(options), key=lambda each: -len(each[1]))
    left = without_denied(normalise(plain), tuple(dict.fromkeys(text for _, text in texts if len(text) > 1)))
    found: set[str | None] = set()
    for label, text in texts:
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
    """A pattern of a text that is no part of a longer word, number or name: not 5 of 1.5 or -5, not C of C++."""
    before, after = "(?<![a-z0-9])", "(?![a-z0-9])"
    if text[0].isdigit():
        before += r"(?<![0-9][.,/:^])(?<![-\u2212])"
    if text[-1].isdigit():
        after += r"(?![.,/:^][0-9]|\s+[0-9]+/[0-9]|\s+(?:thousand|million|billion|trillion)\b)"
    if text[-1].isalpha():
        after += r"(?!\+|#)"
    return f"{before}{re.escape(text)}{after}"


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
    for each in re.finditer(rf"(?<![A-Za-z0-9])([{''.join(options.labels)}])", text) if options.lettered else ():
        if not _has_own_words(each[1], text[each.end() :], options):
            named += f"; it gives {each[1]} the words of another option"
            break
    return f"none of {', '.join(options.labels)} could be read, or not one alone{named}"
