"""What is asked in a row: a question, or the turns of a conversation that ends with the user's."""

from collections.abc import Mapping
from typing import Any

from didact.datasets.conversation import Message, Role
from didact.datasets.rows.fields import first_of, optional_text, written
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.tasks.own.answers import parsed

_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


def turns_of(record: Mapping[str, Any], asked: tuple[str, ...] = ("question",)) -> list[Message]:
    """The turns of `messages`, or the question alone.

    Args:
        record: the row.
        asked: fields of which the first that is there holds the question; `input` beside it is put below it, where
            more than one name is known.

    Raises:
        BadRow: there is no question, or a turn that is none; says which.
    """
    given = parsed(record.get("messages"))
    if given is None:
        return [Message("user", _question(record, asked))]
    if not isinstance(given, list) or not given:
        raise BadRow("wrong_type", "`messages` is no list of turns, each with role and content")
    turns = []
    for turn in given:
        fields = turn if isinstance(turn, dict) else {}
        role = next((each for each in _ROLES if each == fields.get("role")), None)
        content = fields.get("content")
        if role is None or not isinstance(content, str):
            raise BadRow(
                "wrong_turns",
                f"a turn of `messages` is {str(turn)[:60]!r}, expected role and content; roles are {', '.join(_ROLES)}",
            )
        turns.append(Message(role, content))
    if turns[-1].role != "user":
        raise BadRow("wrong_turns", f"`messages` ends with a turn of the {turns[-1].role}, expected the user's")
    return turns


def _question(record: Mapping[str, Any], asked: tuple[str, ...]) -> str:
    name = first_of(record, asked)
    if record.get(name) is None:
        found = ", ".join(map(repr, record)) or "none"
        hint = "; another field is named by `fields: {question: FIELD}`" if len(asked) == 1 else ""
        expected = " or ".join(f"`{each}`" for each in (*asked, "messages"))
        raise BadRow("missing_field", f"there is no question; expected {expected}, found {found}{hint}")
    context = optional_text(record, "input") if len(asked) > 1 else ""
    return f"{written(record, name)}\n\n{context}" if context else written(record, name)
