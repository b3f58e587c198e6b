"""Where the answer stands in a text that begins with reasoning."""

import re

from didact.evaluation.scorers.scorer import Reads

_WORDS = r"(?:final\s+)?answer|(?:最终|正确)?答案"
# A line that begins with the word and a colon, a sentence that states the answer, GSM8K's mark, LaTeX's box.
_MARK = re.compile(
    rf"(?:^|\n)[ \t>#*_-]*(?:the\s+)?(?:{_WORDS})[ \t*_]*(?:is|是|为)?[ \t]*[:\uff1a][ \t*_]*"
    rf"|\b(?:the\s+)?(?:final\s+)?answer\s+is\b[ \t]*:?[ \t*_]*"
    r"|(?:最终|正确)?答案(?:是|为)[ \t]*[:\uff1a]?[ \t]*"
    r"|####[ \t]*(?=[-+$€£¥]*[\d.,]+%?[ \t]*(?:\n|$))"
    r"|\\boxed(?=\{)",
    re.IGNORECASE,
)
_NEXT_QUESTION = re.compile(r"(?<=\S)\s*\n[ \t]*(?:question|q|问题|题目)[ \t]*\d*[ \t]*[:\uff1a]", re.IGNORECASE)
_THOUGHTS_BEGIN, _THOUGHTS_END = "<think>", "</think>"


def answer_mark(text: str) -> re.Match[str] | None:
    """The last place in a text that says that the answer follows."""
    found = list(_MARK.finditer(text))
    return found[-1] if found else None


def read_answer(text: str, *, stepwise: bool, reads: Reads) -> str | None:
    """The part of a text that a scorer is given, None where the text holds no answer.

    Thoughts of models that set them apart (`<think>...</think>`) are no answer, nor is what follows where the model
    goes on with a question of its own. Behind reasoning the answer is what follows the last mark, to the end of its
    line; where there is no mark, scorers that look for the last fitting words are given all of it, the others nothing.

    Args:
        text: what the model wrote.
        stepwise: whether it was asked for reasoning before the answer.
        reads: what the scorer takes a text for.
    """
    said = _without_thoughts(text)
    if said is None or reads == "whole":
        return said
    said = _NEXT_QUESTION.split(said, maxsplit=1)[0]
    if not stepwise:
        return said
    mark = answer_mark(said)
    if mark is None:
        return said if reads == "last" else None
    rest = said[mark.end() :]
    if mark[0].endswith("boxed"):
        return _braced(rest)
    return next((line.strip(" \t*_") for line in rest.split("\n") if line.strip(" \t*_")), None)


def rationale_in(text: str) -> str:
    """What stands before the answer's mark; all of it where there is none."""
    said = text.replace(_THOUGHTS_BEGIN, "").replace(_THOUGHTS_END, "")
    mark = answer_mark(said)
    return (said[: mark.start()] if mark else said).rstrip()


def _without_thoughts(text: str) -> str | None:
    before, end, after = text.rpartition(_THOUGHTS_END)
    if end:
        return after
    return None if before or _THOUGHTS_BEGIN in text else text


def _braced(text: str) -> str | None:
    depth = 0
    for place, mark in enumerate(text):
        depth += (mark == "{") - (mark == "}")
        if not depth:
            return text[1:place].strip() or None
    return None
