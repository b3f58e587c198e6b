"""Texts as they are compared: normalised, as digests, as words, as sentences."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal

from didact.datasets.conversation import Conversation, Message

Compare = Literal["conversation", "prompt"]

SHINGLE_WORDS = 5
"""Words of a run whose sets near duplicates are compared by."""

# Chinese characters, kana, Thai, Lao, Myanmar, Khmer: scripts that put no space between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and accents that are no letters of their own: Latin, Hebrew, Arabic and the Indic scripts.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u0670\u0900-\u0dff"
# An operator before a number tells two sums apart; other punctuation is no word.
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W{_UNSPACED}]|[{_MARKS}])+|[-+*/^=<>×÷](?=\s*[\d(-])")  # noqa: RUF001
_UNSPACED_WORD = re.compile(rf"[{_UNSPACED}]")
_SENTENCE_END = re.compile(r"[.?!:](?=\s|$)|[。？！：；]|\n")  # noqa: RUF001 - Chinese punctuation


def normalise(text: str) -> str:
    """A text without what does not count as a difference: Unicode form (NFKC), case, and the kind of white space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(messages: Sequence[Message]) -> bytes:
    """Sixteen bytes that are equal for messages of equal roles and normalised texts."""
    whole = hashlib.blake2b(digest_size=16)
    for message in messages:
        whole.update(f"{message.role}\x1f{normalise(message.written)}\x1e".encode())
    return whole.digest()


def words(text: str) -> list[str]:
    """The words of a text, case folded, without punctuation; a character of a script without spaces is a word."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def is_unspaced(text_words: Sequence[str]) -> bool:
    """Whether most words are single characters of a script without spaces."""
    return 2 * sum(_UNSPACED_WORD.match(word) is not None for word in text_words) > len(text_words)


def compared(conversation: Conversation, compare: Compare) -> tuple[Message, ...]:
    """The messages that decide whether two conversations are twins."""
    return conversation.messages if compare == "conversation" else conversation.prompt


def said(messages: Sequence[Message]) -> list[Message]:
    """What is said: many rows may share a system message, which tells nothing of a single one."""
    return [message for message in messages if message.role != "system"]


def shingles(messages: Sequence[Message]) -> frozenset[str]:
    """The runs of five words of what is said; one run for fewer words, none for texts without words."""
    found = words("\n".join(message.written for message in said(messages)))
    if not found:
        return frozenset()
    last = max(1, len(found) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(found[start : start + SHINGLE_WORDS]) for start in range(last))


def sentences(text: str) -> Iterator[list[str]]:
    """The words of each sentence or line that has any; a colon ends a sentence as well."""
    for part in _SENTENCE_END.split(unicodedata.normalize("NFKC", text).casefold()):
        if found := _WORD.findall(part):
            yield found
