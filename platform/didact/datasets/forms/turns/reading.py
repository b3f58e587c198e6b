"""Turns of a chat as people write them -> messages: names of roles and fields, contents in parts, marks of training."""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from didact.datasets.conversation import Message, Role
from didact.datasets.forms.turns.tools import RESULT_ROLES, TOOL_FIELDS, tool_message
from didact.datasets.rows.fields import Record, first_of, joined, optional_text, take, text
from didact.datasets.rows.raw_row import BadRow

CHATS = ("conversations", "conversation", "items")
CHAT_FIELDS = ("messages", *CHATS)
"""Fields that hold all turns of a chat."""
TURN_FIELDS = (*CHAT_FIELDS, "prompt", "completion", "response", "chosen")
"""Fields that may hold turns."""
ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "ai", "chatbot", "bing", "bard"), "assistant"),
}
"""Who speaks, in small letters."""
_ROLE_FIELDS = ("from", "role", "speaker", "author", "user")
_TEXT_FIELDS = ("value", "content", "text", "message")
_PAIRS = (
    ("human", "assistant"),
    ("question", "answer"),
    ("input", "output"),
    ("user", "assistant"),
    ("user", "bot"),
    ("prompt", "response"),
    ("query", "response"),
)
"""What is asked and what is answered, where both stand in one turn."""
_MARKS = ("weight", "train", "loss", "training", "loss_weight")
UNUSABLE: dict[str, str] = {
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), "no text model reads it"),
    **dict.fromkeys(("tools", "functions"), "tools are on offer in chats alone"),
    **dict.fromkeys(("reasoning_content", "reasoning", "thinking"), "thoughts beside an answer cannot be learned"),
    "train_detail": "parts of an answer cannot be masked",
}
"""Fields of rows and turns that would change what is learned and cannot be used -> why; a row with one is refused."""
_OTHER_READS = ("system", *(name for pair in _PAIRS for name in pair), *TOOL_FIELDS)
_TURN_READS = frozenset((*_ROLE_FIELDS, *_TEXT_FIELDS, *_MARKS, *_OTHER_READS))
"""What is read of a turn."""


def chat_turns(record: Record, key: str) -> list[Message]:
    """The turns in a field: a list, or the JSON text of one.

    Raises:
        BadRow: the field or a turn cannot be used.
    """
    value = take(record, key)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise BadRow("broken_json", f"field {key!r} is text, but no JSON list of turns: {error}") from None
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"field {key!r} is {type(value).__name__}, expected a list of turns")
    return [message for turn in value for message in _messages_of(turn)]


def said(record: Record, key: str, role: Role) -> list[Message]:
    """A field that holds a text of one role, one turn, or a list of turns.

    Raises:
        BadRow: it is missing, or something else.
    """
    value = take(record, key)
    if isinstance(value, list) and value and isinstance(value[0], str):
        raise BadRow("wrong_type", f"field {key!r} is a list of texts; one record a dialogue is expected")
    if isinstance(value, list):
        return chat_turns(record, key)
    return _messages_of(value) if isinstance(value, dict) else [Message(role, text(record, key))]


def _messages_of(turn: Any) -> list[Message]:
    if not isinstance(turn, dict):
        raise BadRow("wrong_type", f"a turn is {type(turn).__name__}, expected an object")
    refuse_unusable(turn)
    # Nearly all turns are of these two kinds.
    for who, what in (("role", "content"), ("from", "value")):
        if isinstance(turn.get(who), str) and (what in turn or turn.get("tool_calls") or turn.get("function_call")):
            return [_message(turn, who, what)]
    for asks, answers in _PAIRS:
        if asks in turn and answers in turn:
            return _pair(turn, asks, answers)
    who, what = first_of(turn, _ROLE_FIELDS), first_of(turn, _TEXT_FIELDS)
    if who not in turn or what not in turn:
        found = ", ".join(repr(name) for name in list(turn)[:10]) or "none"
        raise BadRow("missing_field", f"a turn has the fields {found}; expected role and content, or from and value")
    return [_message(turn, who, what)]


def _message(turn: Mapping[str, Any], who: str, what: str) -> Message:
    named = text(turn, who)
    speaker = named.strip().lower()
    if (with_tool := tool_message(turn, speaker, turn.get(what))) is not None:
        return replace(with_tool, learned=_is_learned(turn))
    role = ROLES.get(speaker)
    if role is None:
        raise BadRow("unknown_role", f"{who} {named!r} is not one of {', '.join(ROLES)}")
    return Message(role, _content(turn, what), learned=_is_learned(turn))


def _pair(turn: Mapping[str, Any], asks: str, answers: str) -> list[Message]:
    before = optional_text(turn, "system")
    learned = _is_learned(turn)
    asked = [Message("user", text(turn, asks)), Message("assistant", text(turn, answers), learned=learned)]
    return [Message("system", before), *asked] if before.strip() else asked


def _content(turn: Mapping[str, Any], key: str) -> str:
    """A text, or a list of parts that are texts, which follow each other as they do when they are asked."""
    value = turn[key]
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return text(turn, key)
    parts = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind != "text":
            raise BadRow("unusable_field", f"a part of {key!r} is of type {kind!r}; only texts can be learned")
        parts.append(text(part, "text") if isinstance(part, dict) else text({key: part}, key))
    return "".join(parts)


def _is_learned(turn: Mapping[str, Any]) -> bool:
    """Whether the marks of a turn let it be learned: `weight` 0 or 1, `train` and `loss` true or false."""
    learned = True
    for mark in _MARKS:
        value = turn.get(mark)
        if value is None:
            continue
        if value not in (0, 1):
            raise BadRow("wrong_type", f"{mark} {value!r} of a turn is neither 0 nor 1, true nor false")
        learned = learned and bool(value)
    return learned


def refuse_unusable(fields: Mapping[str, Any], reads: frozenset[str] = frozenset()) -> None:
    """Refuse a row or a turn with a field of `UNUSABLE` that holds something.

    Args:
        fields: the row or the turn.
        reads: fields that are used all the same.

    Raises:
        BadRow: `unusable_field`.
    """
    for name in UNUSABLE.keys() & fields.keys() - reads:
        if fields[name] not in (None, "", [], {}, "[]", "{}"):
            way_out = f"where it does not matter, set options.ignore: [{name}]"
            raise BadRow("unusable_field", f"field {name!r} is not empty: {UNUSABLE[name]}; {way_out}")


def unread_of_turn(turn: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of a turn that are not read."""
    unread = _unread(tuple(turn))
    if "name" in unread and any(str(turn.get(who)).strip().lower() in RESULT_ROLES for who in _ROLE_FIELDS):
        return tuple(name for name in unread if name != "name")
    return unread


@lru_cache(maxsize=4096)
def _unread(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in _TURN_READS)


def about(prompt: list[Message], given: str) -> list[Message]:
    """The last turn with what it is about, as `input` beside `instruction`."""
    if not given.strip() or not prompt or not prompt[-1].content.strip():
        return prompt
    *before, last = prompt
    return [*before, replace(last, content=joined(last.content, given))]
