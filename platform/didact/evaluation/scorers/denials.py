"""What a text names without giving it as its answer: options that it denies, and the question's own list of options."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import re
from dataclasses import dataclass
from functools import lru_cache

_GONE = "\u25a1"
"""Stands where a name stood, so that words around it stay apart."""
_WORDS_BETWEEN = (
    r"(?:\s+(?:be|been|think|believe|say|that|it|it['’]?s|is|the|right|correct|best|answer|answers|options?|choices?"
    r"|letters?|statements?|choose|pick|select|go|with|either|both|for)\b)*\s*:?\s*"
)
_DENIES_BEFORE = (
    r"(?:(?:\b(?:not(?!\s+only\b)|never|neither|nor|rul(?:e|es|ed|ing)\s+out|eliminat\w+|exclud\w+|except|reject\w*"
    rf"|discard\w*|(?:rather|other)\s+than|instead\s+of|unlike)\b|n['’]t\b|\b(?:is|are|was|does|would)nt\b)"
    rf"{_WORDS_BETWEEN}"
    r"|(?:不是|不选|不能选|不应选|不该选|不应该选|不要选|不可选|不会是|不可能是|不应是|并非|而非|绝非|除了|排除|剔除|否定)"
    r"(?:了|掉)?(?:选项|答案)?\s*)"
)
_DENIED_BEHIND = (
    r"(?:\s*(?:选项|项)?\s*(?:,\s*)?(?:是|都|均|也|显然|明显|的?说法)*"
    r"(?:不对|不正确|不成立|不符合?|不行|不可能|不合适|不应?选|不是|错误|错了|错(?![\u4e00-\u9fff])|有误|可以?排除)"
    r"|\s+(?:is|are|was|were|seems?|looks?|sounds?|would\s+be|must\s+be|can\s+be|could\s+be)\s+"
    r"(?:(?:clearly|obviously|definitely|also|thus|simply|just|both|all)\s+)*"
    r"(?:not|wrong|incorrect|false|untrue|out|impossible|irrelevant|invalid|inaccurate|unlikely|excluded|eliminated|"
    r"ruled\s+out)\b"
    r"|\s+(?:cannot|does\s+not|do\s+not|did\s+not|will\s+not|would\s+not)\b|\s+\w+n['’]t\b"
    r"|\s*\?\s*(?:[Nn]o\b|[Nn]ope\b|[Ww]rong\b|不(?:是|对)?(?=[,.。!\s]|$)))"
)
_WRONG_BEHIND = (
    r"\s+(?:(?:is|are|was|were|would\s+be|must\s+be)(?:\s+(?:clearly|obviously|definitely|also|thus|simply|just))*"
    r"\s+(?:wrong|incorrect|false|untrue|excluded|eliminated|ruled\s+out|not\s+(?:right|correct|true|it|the\s+answer))\b"
    r"|is(?:n['’]t|nt)\s+(?:right|correct|true|it|the\s+answer)\b)"
)
"""Of words, which may stand in sentences of their own: "Paris is not in Germany" denies no Paris."""
_IDIOMS = re.compile(
    r"\bno\s+(?:idea|clue|doubt|way\s+to|one|longer|more|matter|need|other|such|answer|information|sense|reason|context)\b",
    re.IGNORECASE,
)
"""What begins with the word of an answer, and is none."""
_ARE_OPTIONS = (
    r"\s*(?:(?:are|were)\s+(?:all\s+)?(?:the|my|our|your)?\s*(?:possible|available|given|four|five)?\s*(?:options|choices)"
    r"|(?:都|均)?是(?:给出的|全部)?选项)"
)
_OPTIONS_ARE = (
    r"(?<!correct )(?<!right )(?<!正确)(?<!正确的)"
    r"(?:\b(?:options|choices)\b\s*(?:are|were|include|given)?\s*:?|选项(?:有|是|为|包括)?:?)\s*"
)


@dataclass(frozen=True, slots=True)
class _Patterns:
    denied: tuple[re.Pattern[str], ...]
    listed: tuple[re.Pattern[str], ...]
    name: re.Pattern[str]


def without_denied(text: str, names: tuple[str, ...]) -> str:
    """A text in which names that it denies (`it isn't A`, `A不对`, `rule out (C)`) are marked out.

    So are lists of all names that are said to be the options (`A, B, C and D are the options`).

    Args:
        text: with plain signs (NFKC).
        names: letters, in capitals, or words; none deny nothing.
    """
    if not names:
        return text
    patterns = _patterns(names)
    text = _IDIOMS.sub(lambda found: _blank(found, patterns), text)
    for pattern in patterns.listed:
        text = pattern.sub(lambda found: _blank(found, patterns) if _all_named(found[0], names) else found[0], text)
    for pattern in patterns.denied:
        text = pattern.sub(lambda found: _blank(found, patterns), text)
    return text


def own_list(text: str, letters: tuple[str, ...], least: int) -> tuple[int, int] | None:
    """Where a text repeats the list of options (`A. Paris B. London`): from the first letter to behind the last one's.

    Args:
        text: with plain signs.
        letters: of the options, in order.
        least: as many of them, from the first one, make a list.
    """
    items = re.compile(rf"(?<![A-Za-z0-9])[(\[*]{{0,8}}([{''.join(letters)}])\s*[).\]:、]")
    place, begin, end = 0, 0, 0
    for found in items.finditer(text):
        if place < len(letters) and found[1] == letters[place]:
            begin = begin if place else found.start()
            end, place = found.end(), place + 1
    return (begin, end) if place >= max(2, least) else None


@lru_cache(maxsize=64)
def _patterns(names: tuple[str, ...]) -> _Patterns:
    lettered = all(len(name) == 1 for name in names)
    if lettered:
        one = rf"(?:(?<![A-Za-z0-9])[{''.join(names)}](?![A-Za-z0-9'’])|[(\[][{''.join(names).lower()}][)\]])"
    else:
        one = "(?i:" + "|".join(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])" for name in names) + ")"
    # So many at most: from each of ten thousand brackets, or letters, all the others would be looked at.
    marked = rf"[(\[\"'“‘*_`{{]{{0,8}}{one}[)\]\"'”’*_`}}]{{0,8}}"
    # A comma alone may begin what is said instead: "not A, B".
    last = rf"\s*(?:,\s*)?(?:\b(?:and|or|nor)\b|和|或|与|及)\s*{marked}"
    several = rf"{marked}(?:{last}|\s*[、/]\s*{marked}|(?:\s*,\s*{marked}){{1,26}}{last}){{0,26}}"
    behind = rf"{several}{_DENIED_BEHIND}" if lettered else rf"{several}(?i:{_WRONG_BEHIND})"
    listed = rf"{marked}(?:\s*(?:[,、/]|and|和|或|or){{1,3}}\s*{marked}){{1,26}}"
    return _Patterns(
        denied=tuple(map(re.compile, (rf"(?i:{_DENIES_BEFORE}){several}", behind))),
        listed=(re.compile(rf"{listed}{_ARE_OPTIONS}"), re.compile(rf"(?i:{_OPTIONS_ARE}){listed}")),
        name=re.compile(one),
    )


def _blank(found: re.Match[str], patterns: _Patterns) -> str:
    return patterns.name.sub(_GONE, found[0])


def _all_named(text: str, names: tuple[str, ...]) -> bool:
    return all(re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text) for name in names)
