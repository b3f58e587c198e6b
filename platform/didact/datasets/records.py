"""Records -> conversations: one function for each way of writing instruction data."""

from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

from didact.datasets.decoding import check_object, decode_columns, decode_json
from didact.datasets.rows import BadRow, RawRow
from didact.datasets.types import Conversation, Message, Role

Form = Literal["alpaca", "sharegpt", "messages", "cot_tsv", "reasoning_gym"]

_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
_MESSAGE_ROLES = ("system", "user", "assistant")
_NAMED_BY: dict[Form, frozenset[str]] = {
    "messages": frozenset({"messages"}),
    "sharegpt": frozenset({"conversations"}),
    "alpaca": frozenset({"instruction", "output"}),
}
KNOWN_FORMS = "alpaca (instruction, input, output), sharegpt (conversations), messages (messages)"
"""The forms that are recognised by their keys, as shown in errors."""


def recognise(keys: Iterable[str]) -> Form | None:
    """The form of a record with these keys, or None."""
    present = set(keys)
    return next((form for form, named_by in _NAMED_BY.items() if named_by <= present), None)


def to_conversation(form: Form, raw: RawRow, row: int) -> Conversation:
    """One raw row in the form all data takes.

    Args:
        form: how the row is written.
        raw: the row.
        row: its index in the source.

    Raises:
        BadRow: the row cannot be used, and why.
    """
    if raw.fault is not None:
        raise raw.fault
    if form == "cot_tsv":
        messages, answer = _cot_tsv(decode_columns(cast(bytes, raw.content)))
    else:
        record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
        messages, answer = _FROM_RECORD[form](record)
    _check_turns(messages)
    return Conversation(tuple(messages), row, answer)


def _alpaca(record: dict[str, Any]) -> tuple[list[Message], str | None]:
    instruction, output = _text(record, "instruction"), _text(record, "output")
    # Tables such as Parquet write an absent input as null.
    given = "" if record.get("input") is None else _text(record, "input")
    prompt = "\n\n".join(part for part in (instruction, given) if part.strip())
    return [Message("user", prompt), Message("assistant", output)], None


def _sharegpt(record: dict[str, Any]) -> tuple[list[Message], str | None]:
    return [_turn(turn, "from", "value", tuple(_ROLES)) for turn in _turns(record, "conversations")], None


def _messages(record: dict[str, Any]) -> tuple[list[Message], str | None]:
    return [_turn(turn, "role", "content", _MESSAGE_ROLES) for turn in _turns(record, "messages")], None


def _cot_tsv(columns: list[str]) -> tuple[list[Message], str | None]:
    if len(columns) != 3:
        raise BadRow("wrong_columns", f"found {len(columns)} columns, expected 3: question, answer, rationale")
    question, answer, rationale = columns
    for name, text in (("answer", answer), ("rationale", rationale)):
        if not text.strip():
            raise BadRow("empty_output", f"column {name!r} is empty")
    reply = f"{rationale}\nThe answer is {answer}."
    return [Message("user", question), Message("assistant", reply)], answer


def _reasoning_gym(record: dict[str, Any]) -> tuple[list[Message], str | None]:
    question, answer = _text(record, "question"), _text(record, "answer")
    rationale = check_object(record.get("metadata", {})).get("answer_cot") or answer
    if not isinstance(rationale, str):
        raise BadRow("wrong_type", f"metadata.answer_cot is {type(rationale).__name__}, expected text")
    return [Message("user", question), Message("assistant", rationale)], answer


_FROM_RECORD: dict[Form, Callable[[dict[str, Any]], tuple[list[Message], str | None]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "reasoning_gym": _reasoning_gym,
}


def _text(record: dict[str, Any], key: str) -> str:
    value = _field(record, key)
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected text")
    return value


def _turns(record: dict[str, Any], key: str) -> list[Any]:
    value = _field(record, key)
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected a list of turns")
    return value


def _field(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        found = ", ".join(repr(name) for name in list(record)[:10]) or "none"
        raise BadRow("missing_field", f"field {key!r} is missing; found {found}")
    return record[key]


def _turn(turn: Any, role_key: str, text_key: str, allowed: tuple[str, ...]) -> Message:
    if not isinstance(turn, dict):
        raise BadRow("wrong_type", f"a turn is {type(turn).__name__}, expected an object")
    role = _text(turn, role_key)
    if role not in allowed:
        raise BadRow("unknown_role", f"{role_key} {role!r} is not one of {', '.join(allowed)}")
    return Message(_ROLES[role], _text(turn, text_key))


def _check_turns(messages: list[Message]) -> None:
    """Refuse turns out of order, and texts that are empty or that no tokenizer takes."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    roles: list[Role] = [message.role for message in turns]
    expected: list[Role] = ["user", "assistant"] * (len(roles) // 2)
    if not roles or roles != expected:
        found = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        raise BadRow("wrong_turns", f"found {found or 'none'}; expected user, assistant, ..., ending with assistant")
    for message in messages:
        _check_characters(message.content)
    # An empty user turn further on is how some chats were told to go on; an empty first one asks nothing.
    if not turns[0].content.strip():
        raise BadRow("empty_prompt", "the first turn of the user is empty")
    if not all(message.content.strip() for message in turns[1::2]):
        raise BadRow("empty_output", "a turn of the assistant is empty")


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise BadRow("nul", f"NUL character at position {text.index(chr(0))} of a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("lone_surrogate", f"half a character, {text[error.start]!r}, in a text") from None
