"""What an answer must be, and why it cannot be that."""

import json
from dataclasses import dataclass

from didact.errors import DidactError


class GrammarError(DidactError, ValueError):
    """A grammar that cannot be followed, or costs too much. The message begins with the field that asks for it."""


class GrammarsMissing(GrammarError):
    """This engine cannot hold answers to a grammar."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must be, token for token; see `engine.grammar`."""

    rules: str
    """In Lark as llguidance reads it."""
    field: str
    """What of the request asks for it; errors begin with it."""
    begin: str = "answer"
    """What the answer is made of, in terms of the rules; empty where they say it themselves."""

    @property
    def text(self) -> str:
        """The whole grammar."""
        return f"start: {self.begin}\n{self.rules}" if self.begin else self.rules

    def holds(self, text: str) -> bool:
        """Whether a text of several characters stands in the rules, as it is or as JSON writes it."""
        return len(text) > 1 and (text in self.rules or json.dumps(text)[1:-1] in self.rules)
