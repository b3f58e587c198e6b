"""Marks around what others wrote, so that a judge can tell it from what it is told.

The marks hold a code made of the contents. Nobody can write an answer that holds the code of itself, and the same
contents have the same code, so that judgements can be remembered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from didact.evaluation.judge.wording import WORDING, Language
from didact.files import fingerprint

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Block:
    """One text with its name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Fence:
    """The marks of one prompt."""

    code: str
    language: Language

    @classmethod
    def around(cls, blocks: Sequence[Block], language: Language) -> "Fence":
        """A code that stands in none of the texts."""
        texts, salt = [block.text for block in blocks], 0
        while True:
            code = fingerprint({"texts": texts, "salt": salt})[:_DIGITS]
            if not any(code in text.casefold() for text in texts):
                return cls(code, language)
            salt += 1

    def begins(self, name: str) -> str:
        """The line before a text."""
        return WORDING.begins[self.language].format(block=name, code=self.code)

    def ends(self, name: str) -> str:
        """The line after it."""
        return WORDING.ends[self.language].format(block=name, code=self.code)

    def enclose(self, blocks: Sequence[Block]) -> str:
        """All texts, each between its marks."""
        return "\n\n".join(f"{self.begins(block.name)}\n{block.text}\n{self.ends(block.name)}" for block in blocks)


def without_quotes(reply: str, code: str) -> str | None:
    """A reply without the blocks that it repeats; None where it ends inside one.

    A block lasts from a line with the code to the next one.
    """
    if not code or code not in reply:
        return reply
    kept, inside = [], False
    for line in reply.splitlines():
        if code in line:
            inside = not inside
        elif not inside:
            kept.append(line)
    return None if inside else "\n".join(kept)
