"""Fields that mean the same in every form: the system message, whether a row is wanted, what no text model reads."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.turns.reading import UNUSABLE
from didact.datasets.rows.fields import Record, joined, optional_text
from didact.datasets.rows.raw_row import BadRow

SYSTEM = ("system", "system_prompt", "system_message")
LABELS = ("kto_tag", "label")
_PLACEHOLDER = re.compile(r"<(image|video|audio)>")


def without(record: Record, ignored: Sequence[str]) -> dict[str, Any]:
    """A record without some fields, in its turns as well."""
    return {
        name: [without(turn, ignored) if isinstance(turn, dict) else turn for turn in value]
        if isinstance(value, list)
        else value
        for name, value in record.items()
        if name not in ignored
    }


def check_wanted(record: Record, reads: frozenset[str], at_least: Mapping[str, float]) -> None:
    """Refuse a row whose own fields say that it is not wanted.

    Args:
        record: the row.
        reads: fields that its form reads.
        at_least: field -> the least number that is learned.

    Raises:
        BadRow: `unwanted`, or a field of the wrong type.
    """
    for name in LABELS:
        if name in record and name not in reads and _is_false(name, record[name]):
            raise BadRow("unwanted", f"{name} says that its answer is not wanted")
    for name, least in at_least.items():
        _check_number(record, name, least)


def with_system(record: Record, reads: frozenset[str], messages: Sequence[Message]) -> list[Message]:
    """The turns with the row's system message before them; one that is there already follows it."""
    for name in SYSTEM:
        if name in record and name not in reads and (before := optional_text(record, name)).strip():
            if messages and messages[0].role == "system":
                if messages[0].content.strip() == before.strip():
                    return list(messages)
                return [Message("system", joined(before, messages[0].content)), *messages[1:]]
            return [Message("system", before), *messages]
    return list(messages)


def check_texts(messages: Sequence[Message]) -> None:
    """Refuse a turn that asks about a picture, a film or a sound.

    Raises:
        BadRow: `unusable_field`.
    """
    for message in messages:
        found = _PLACEHOLDER.search(message.content) if message.role == "user" and "<" in message.content else None
        # With an end it is text of a page or a document, which may be asked about.
        if found and f"</{found[1]}" not in message.content:
            raise BadRow("unusable_field", f"a turn holds {found[0]}: {UNUSABLE['images']}")


def is_label(value: Any) -> bool:
    """Whether a value says yes or no; other labels are names of classes."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def _is_false(name: str, value: Any) -> bool:
    if is_label(value):
        return str(value).strip().lower() == "false"
    if name == "kto_tag" and value is not None:
        raise BadRow("wrong_type", f"kto_tag is {value!r}, expected true or false")
    return False


def _check_number(record: Record, name: str, least: float) -> None:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        found = "missing" if value is None else f"{type(value).__name__}"
        raise BadRow("missing_field", f"options.at_least asks for a number in {name!r}, which is {found}")
    try:
        number = float(value)
    except ValueError:
        raise BadRow("wrong_type", f"options.at_least asks for a number in {name!r}, found {value!r}") from None
    if not number >= least:
        raise BadRow("unwanted", f"{name} {value} is below options.at_least, {least:g}")
