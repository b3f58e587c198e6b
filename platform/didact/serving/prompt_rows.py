"""A row that asks something, as people have them in files and tables: `prompt`, `messages`, or Alpaca's fields."""

import json
from dataclasses import dataclass
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.turns import prompt_turns
from didact.errors import DataError
from didact.serving.replica.backend import Prompt

ADDED_FIELDS = ("prediction", "model", "error", "line")
"""What an answered row has beside the input's own."""


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One line of the input."""

    line: int
    """Counted from 1."""
    fields: dict[str, Any]
    prompt: Prompt | None
    """None when the row is bad."""
    error: str = ""

    @classmethod
    def parse(cls, line: int, text: bytes) -> "PromptRow":
        """Read one line; what is wrong with it goes into `error`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            return cls(line, {}, None, f"not valid JSON: {error}")
        if not isinstance(values, dict):
            return cls(line, {}, None, f"expected a JSON object, found {type(values).__name__}")
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return cls(line, {}, None, "holds half of a surrogate pair, which is no character")
        try:
            return cls(line, values, prompt_of(values))
        except DataError as error:
            return cls(line, values, None, str(error))

    def record(self, **added: Any) -> dict[str, Any]:
        """The output line: the input's fields and what is added."""
        return {**{key: value for key, value in self.fields.items() if key not in ADDED_FIELDS}, **added}


def prompt_of(values: dict[str, Any]) -> tuple[Message, ...]:
    """What a row asks.

    Raises:
        DataError: it has none of the fields, or they hold something else.
    """
    values = {
        field: value for field, value in values.items() if value is not None
    }  # a table has all, some of them null
    if "messages" in values:
        return prompt_turns(values)
    if "prompt" in values:
        return _asked(values, _text(values, "prompt"))
    if "instruction" in values:
        parts = [_text(values, "instruction"), _text(values, "input") if values.get("input") else ""]
        return _asked(values, "\n\n".join(part for part in parts if part))
    raise DataError(f"expected a field prompt, messages or instruction; found {sorted(values)}")


def _asked(values: dict[str, Any], text: str) -> tuple[Message, ...]:
    return prompt_turns({**values, "messages": [{"role": "user", "content": text}]})


def _text(values: dict[str, Any], field: str) -> str:
    text = values[field]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{field}: expected text, found {str(text)[:50]!r}")
    return text
