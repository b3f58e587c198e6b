"""The options of a multiple choice, and which of them a key means."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

KeyKind = Literal["letter", "number", "text"]
"""What a key is: the option's letter, its number from 0, or its own words."""


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


def candidates(options: Options) -> tuple[str, ...]:
    """Every answer there can be: the labels, or all sets of letters where several may be right."""
    if not options.several:
        return options.labels
    sets = range(1, 2 ** len(options.labels))
    return tuple("".join(label for place, label in enumerate(options.labels) if each >> place & 1) for each in sets)


def readings_of(answer: str | int, texts: Sequence[str], kind: KeyKind | None = None) -> dict[KeyKind, str]:
    """All that a key can mean: the letter of the option that it is by letter, by number from 0, by its own words.

    Args:
        answer: the key.
        texts: of the options.
        kind: which one it is, where that was said; None for any.
    """
    written = unicodedata.normalize("NFKC", str(answer)).strip()
    letters = LETTERS[: len(texts)]
    found: dict[KeyKind, str] = {}
    letter = written.strip(" ().").upper()
    if not isinstance(answer, int) and len(letter) == 1 and letter in letters:
        found["letter"] = letter
    if written.isdecimal() and int(written) < len(letters):
        found["number"] = letters[int(written)]
    words = {letter: plain_option(text) for letter, text in zip(letters, texts, strict=True)}
    own = plain_option(written)
    same = [letter for letter, text in words.items() if text == own]
    # Case may be all that sets two options apart, so it counts where it can.
    if same := same or [letter for letter, text in words.items() if text.casefold() == own.casefold()]:
        found["text"] = "".join(same)
    return found if kind is None else {name: label for name, label in found.items() if name == kind}


def label_of(answer: str | int, texts: Sequence[str]) -> str:
    """The letter of an option that is given by letter, by its number from 0, or by its text; empty where it is none.

    A number that is meant as such (an `int`) is an option's number first, a text its own words before its number.
    `key_of` refuses what may be either.
    """
    found = readings_of(answer, texts)
    order: tuple[KeyKind, ...] = ("number", "text") if isinstance(answer, int) else ("letter", "text", "number")
    return next((found[name][:1] for name in order if name in found), "")


def key_of(answers: Sequence[str], texts: Sequence[str], several: bool, kind: KeyKind | None) -> str:
    """The right label, or the set of them, that the answers of a row name.

    Args:
        answers: one, or where several options may be right any number: letters together, or each on its own.
        texts: of the options.
        several: whether the key is a set.
        kind: what an answer is, where that was said.

    Raises:
        ValueError: they name none, or may mean more than one; the message says which.
    """
    if len(answers) > 1 and not several:
        raise ValueError(f"it has {len(answers)} answers; with `several: true` a row may have more than one")
    found: set[str] = set()
    for answer in answers:
        readings = readings_of(answer, texts, kind)
        if several and kind in (None, "letter") and (letters := letters_of(answer, texts)):
            readings["letter"] = letters
        meanings = [*dict.fromkeys(readings.values())]
        if not meanings:
            a_kind = f"the {kind} of none" if kind else "none"
            names = ", ".join(LETTERS[: len(texts)])
            raise ValueError(f"the answer {answer[:60]!r} is {a_kind} of the options {names}")
        if len(meanings) > 1 or ("text" in readings and len(readings["text"]) > 1):
            said = ", ".join(f"{' and '.join(each)} {_AS[name]}" for name, each in readings.items())
            raise ValueError(
                f"the answer {answer[:60]!r} may mean {said}; say which by `scorer: {{name: choice, key: letter}}`, "
                "`number` or `text`"
            )
        found |= set(meanings[0])
    return "".join(sorted(found))


_AS: dict[KeyKind, str] = {"letter": "as a letter", "number": "as a number from 0", "text": "as an option's own words"}


def equal_options(texts: Sequence[str]) -> str | None:
    """Which options are the same one, such as `A and C are both '4'`; None where all differ."""
    seen: dict[str, str] = {}
    for letter, text in zip(LETTERS, texts, strict=False):
        plain = plain_option(text)
        if plain in seen:
            return f"{seen[plain]} and {letter} are both {text[:40]!r}"
        seen[plain] = letter
    return None


def letters_of(answer: str, texts: Sequence[str]) -> str:
    """The set of letters in a key, in order; empty where it is no set of letters, or none of them is an option.

    Full-width and small letters, letters twice or in another order, marks and line breaks between them, and letters of
    which there is no option make no difference.
    """
    key = re.sub(r"[\s,、;/.。]+", "", unicodedata.normalize("NFKC", answer)).upper()
    return "".join(each for each in LETTERS[: len(texts)] if each in key) if re.fullmatch("[A-Z]+", key) else ""


def plain_option(text: str) -> str:
    """An option without what makes no difference: width of letters and blanks. Case may be all that sets two apart."""
    return " ".join(unicodedata.normalize("NFKC", text).split())
