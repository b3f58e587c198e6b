"""The words that judges are told, out of `wording.yaml`, and which of them a question gets."""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from didact.errors import DataError
from didact.files import fingerprint

Language = Literal["en", "zh"]
GENERAL = "general"
"""The class of questions that have none, or one that nothing is known of."""


class Wording:
    """What stands in `wording.yaml`, read when it is first needed."""

    @cached_property
    def all(self) -> dict[str, Any]:
        """The whole file."""
        text = resources.files("didact.evaluation.judge").joinpath("wording.yaml").read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    @cached_property
    def digest(self) -> str:
        """Hex digest of all words: other words, other figures."""
        return fingerprint(self.all)

    @property
    def begins(self) -> Mapping[Language, str]:
        """The mark before a text."""
        return self.all["begins"]

    @property
    def ends(self) -> Mapping[Language, str]:
        """The mark after it."""
        return self.all["ends"]


WORDING = Wording()


def class_of(label: str) -> str:
    """A class as `wording.yaml` calls it, whatever letters, blanks and case a file writes it in.

    Classes that nothing is known of come back in the plain form of their own name.
    """
    return WORDING.all["same_as"].get(plain_class(label), plain_class(label))


def plain_class(label: str) -> str:
    """A class in lower case, with one blank between words."""
    return " ".join(unicodedata.normalize("NFKC", label).replace("_", " ").replace("-", " ").casefold().split())


def group_of(label: str) -> str:
    """A class as a part of metrics' names, which have no blanks."""
    return plain_class(label).replace(" ", "_")


def language_of(text: str) -> Language:
    """Chinese where at least a fifth of the letters are Chinese characters."""
    letters = [character for character in text if character.isalpha()]
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in letters)
    return "zh" if chinese and chinese * 5 >= len(letters) else "en"


@dataclass(frozen=True)
class Criteria:
    """What counts in each class."""

    own: Mapping[str, str]
    """Class -> the user's words."""

    @classmethod
    def read(cls, path: str | None) -> "Criteria":
        """Words of one's own, in JSON lines with `class` and `prompt`.

        Raises:
            DataError: the file is missing, empty, or a line has another form; names file and line.
        """
        if path is None:
            return cls({})
        try:
            lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"judging.criteria: {path} cannot be read: {error}") from None
        own: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                own[class_of(row["class"])] = row["prompt"].strip()
            except (ValueError, TypeError, LookupError, AttributeError):
                raise DataError(
                    f"judging.criteria: {path}, line {number}: found {line[:80]!r}; expected a JSON object with texts "
                    "class and prompt"
                ) from None
        if not own:
            raise DataError(f"judging.criteria: {path} holds no rows; expected JSON lines with class and prompt")
        return cls(own)

    def known(self, label: str) -> bool:
        """Whether a class has words of its own."""
        return class_of(label) in self.own or class_of(label) in WORDING.all["criteria"]

    def of(self, label: str, language: Language) -> str:
        """What counts in a class."""
        name = class_of(label)
        if name in self.own:
            return self.own[name]
        criteria = WORDING.all["criteria"]
        found: str = criteria.get(name, criteria[GENERAL])[language]
        return found
