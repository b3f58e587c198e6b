"""Values out of records, with the reason when they are not there."""

import math
from collections.abc import Mapping
from typing import Any

from didact.datasets.rows.raw_row import BadRow

Record = Mapping[str, Any]


def take(record: Record, key: str) -> Any:
    """A field of any type.

    Raises:
        BadRow: it is missing.
    """
    if key not in record:
        found = ", ".join(repr(name) for name in list(record)[:10]) or "none"
        raise BadRow("missing_field", f"field {key!r} is missing; found {found}")
    return record[key]


def text(record: Record, key: str) -> str:
    """A field of text.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = take(record, key)
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected text")
    return value


def optional_text(record: Record, key: str) -> str:
    """A field of text, empty where it is absent or null: tables such as Parquet write what is absent as null.

    Raises:
        BadRow: it is something else.
    """
    return "" if record.get(key) is None else text(record, key)


def written(record: Record, key: str) -> str:
    """A field of text, a number or a truth value, as text.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = take(record, key)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    return text(record, key)


def items(record: Record, key: str) -> list[Any]:
    """A field that is a list.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = take(record, key)
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected a list")
    return value


def texts(record: Record, key: str) -> list[str]:
    """A field that is a list of texts.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = items(record, key)
    for item in value:
        if not isinstance(item, str):
            raise BadRow("wrong_type", f"field {key!r} holds {type(item).__name__}, expected text")
    return value


def inner(record: Record, key: str) -> dict[str, Any]:
    """A field that is an object.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = take(record, key)
    if not isinstance(value, dict):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected an object")
    return value


def first_of(record: Record, keys: tuple[str, ...]) -> str:
    """The name of the first of these fields that is there and not null, else of the first that is there at all.

    The first name where none is.
    """
    filled = next((key for key in keys if record.get(key) is not None), None)
    return filled or next((key for key in keys if key in record), keys[0])


def listed(values: list[str]) -> str:
    """Several answers as one: commas between them, or semicolons where one of them holds a comma; blank ones go.

    Raises:
        BadRow: none is left.
    """
    filled = [value.strip() for value in values if value.strip()]
    if not filled:
        raise BadRow("empty_output", "no answer is given, or all are blank")
    return ("; " if any("," in value for value in filled) and len(filled) > 1 else ", ").join(filled)


def with_context(record: Record, question: str) -> str:
    """A question with the text in `context` that it is about; an empty question stays empty, so that it is refused."""
    given = record.get("context")
    return joined(question, given) if isinstance(given, str) and question.strip() else question


def joined(*parts: str) -> str:
    """Texts with a blank line between them; blank ones are left out."""
    return "\n\n".join(part for part in parts if part.strip())
