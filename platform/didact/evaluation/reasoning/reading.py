"""Where the answer stands in a text that begins with reasoning."""

import re

from didact.evaluation.scorers.scorer import Reads, before_next_question

_WORDS = r"(?:final\s+)?answer|(?:最终|正确)?答案"
# A line or sentence that begins with the word and a colon, one that states the answer, GSM8K's mark, LaTeX's box.
_MARK = re.compile(
    rf"(?:^|\n|(?<=[.!?\u3002\uff01\uff1f])[ \t])[ \t>#*_-]*"
    rf"(?:the\s+)?(?:{_WORDS})[ \t*_]*(?:is|是|为)?[ \t]*[:\uff1a][ \t*_]*"
    rf"|(?<!\bif )(?<!\bif the )(?<!\bwhether )(?<!\bwhether the )"
    rf"\b(?:the\s+)?(?:final\s+)?answer\s+is\b[ \t]*:?[ \t*_]*"
    r"|(?:最终|正确)?答案(?:是|为)[ \t]*[:\uff1a]?[ \t]*"
    r"|####[ \t]*(?=[-+$€£¥]*[\d.,]+%?[ \t]*(?:\n|$))"
    r"|\\(?:boxed|fbox)(?=\{)|<answer>",
    re.IGNORECASE,
)
_EMPHASIS = re.compile(r"[*_]+(?=[ \t]*\Z)")
_CLOSED = re.compile(r"[*_]+([.,;:!?\u3002\uff01\uff1f]*)\Z")
# As models write them: Qwen, DeepSeek and many others; Magistral; Kimi; Seed.
_THOUGHTS = re.compile(
    r"<(?P<end>/)?(?:think|thinking|thought|thoughts|reasoning|seed:think)>|\[(?P<square>/)?THINK\]|\u25c1(?P<kimi>/)?think\u25b7",
)


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
    said = without_thoughts(text)
    if said is None or reads == "whole":
        return said
    said = before_next_question(said)
    if not stepwise:
        return said
    mark = answer_mark(said)
    if mark is None:
        return said if reads == "last" else None
    rest = said[mark.end() :]
    if mark[0].endswith(("boxed", "fbox")):
        return _braced(rest)
    if mark[0].casefold() == "<answer>":
        return re.split(r"</answer>", rest, maxsplit=1, flags=re.IGNORECASE)[0].strip() or None
    line = next((line for line in rest.split("\n") if line.strip(" \t*_")), None)
    return None if line is None else _without_emphasis(line, mark[0])


def _without_emphasis(line: str, mark: str) -> str:
    """An answer's line without marks of emphasis around it; some of them begin with what the mark before it holds."""
    opened = _EMPHASIS.search(mark)
    if opened:
        line = line.replace(opened[0], "", 1)
    return _CLOSED.sub(r"\1", line.strip(" \t*_"))


def rationale_in(text: str) -> str:
    """What stands before the answer's mark; all of it where there is none."""
    said = _THOUGHTS.sub("", text)
    mark = answer_mark(said)
    return (said[: mark.start()] if mark else said).rstrip()


def without_thoughts(text: str) -> str | None:
    """What a model says behind its thoughts, where it sets them apart; None where they never end.

    Where only their end stands, what is before it was thought: some templates write the beginning themselves.
    """
    marks = list(_THOUGHTS.finditer(text))
    if not marks:
        return text
    last = marks[-1]
    ends = any(last.groups())
    return text[last.end() :] if ends else None


def _braced(text: str) -> str | None:
    depth = 0
    for place, mark in enumerate(text):
        depth += (mark == "{") - (mark == "}")
        if not depth:
            return text[1:place].strip() or None
    return None
