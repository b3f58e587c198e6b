"""Question, rationale and answer -> what is asked and what is said, in templates of our own.

Which template a row gets is a hash of the seed and of the row's own text, so every machine and every order of the rows
gives the same bytes. The mode `before` has one template a language: it is the plain form of the data.
"""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from didact.datasets.conversation import Message
from didact.datasets.rows.options import Language, ReasoningMode

_BEFORE: dict[Language, str] = {"en": "{rationale}\nThe answer is {answer}.", "zh": "{rationale}\n答案是{answer}。"}
_ASK_REASONS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Think step by step, then give the answer.",
        "Work through it step by step before you answer.",
        "Show the reasoning that leads to your answer.",
        "Reason it out first and finish with the answer.",
    ),
    "zh": (
        "请一步一步地思考，然后给出答案。",
        "请先写出推理过程，最后作答。",
        "请逐步分析后再回答。",
        "请说明得出答案的理由。",
    ),
}
_ASK_ANSWER: dict[Language, tuple[str, ...]] = {
    "en": (
        "Give only the answer.",
        "Answer without any explanation.",
        "Reply with the answer and nothing else.",
        "No reasoning is needed; state the answer.",
    ),
    "zh": ("只给出答案。", "请直接作答，不必解释。", "仅回复答案。", "不需要推理过程，直接写出答案。"),
}
_ENDS = frozenset(".!?。！？")
"""What ends an answer that is a sentence, and is not written twice."""
_MODES: tuple[Literal["before", "only", "suffix"], ...] = ("before", "only", "suffix")


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A question whose answer comes with its reasons."""

    question: str
    rationale: str
    answer: str


def reasoned_turns(row: Reasoned, mode: ReasoningMode, language: Language, seed: int) -> list[Message]:
    """One user and one assistant turn.

    Args:
        row: the question with its rationale and answer.
        mode: what is asked for, and so what is answered; `mixed` picks one of the three.
        language: of the words that are added.
        seed: `data.seed`.
    """
    drawn = _draw(row, seed)
    if mode == "mixed":
        mode = _MODES[drawn % len(_MODES)]
    if mode == "only":
        return _turns(row.question, _pick(_ASK_ANSWER[language], drawn), row.answer)
    reply = _BEFORE[language].format(rationale=row.rationale.rstrip(), answer=row.answer.strip())
    if row.answer.rstrip()[-1:] in _ENDS:
        reply = reply[:-1]
    return _turns(row.question, _pick(_ASK_REASONS[language], drawn) if mode == "suffix" else "", reply)


def _turns(question: str, request: str, reply: str) -> list[Message]:
    # An empty question stays empty, so that it is found to be.
    asked = f"{question.rstrip()}\n\n{request}" if request and question.strip() else question
    return [Message("user", asked), Message("assistant", reply)]


def _pick(templates: Sequence[str], drawn: int) -> str:
    return templates[drawn // len(_MODES) % len(templates)]


def _draw(row: Reasoned, seed: int) -> int:
    content = "\x1f".join((str(seed), row.question, row.rationale, row.answer))
    digest = hashlib.blake2b(content.encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
