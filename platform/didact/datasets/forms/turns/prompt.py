"""Turns that a model is asked, read as those of a data set: what was learned from can be asked again."""

from collections.abc import Mapping
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.turns.reading import chat_turns
from didact.datasets.forms.turns.tools import with_tools
from didact.datasets.rows.raw_row import BadRow
from didact.errors import DataError


def prompt_turns(record: Mapping[str, Any]) -> tuple[Message, ...]:
    """The turns in `messages`, with the row's `tools` where it has some.

    Raises:
        DataError: they cannot be read, hold a turn without text, or do not end with the user's or a tool's result.
    """
    try:
        turns = with_tools(record, chat_turns(record, "messages"))
    except BadRow as bad:
        raise DataError(f"messages: {bad.detail}") from None
    if not turns:
        raise DataError("messages: expected a list of turns; found none")
    for index, turn in enumerate(turns):
        if turn.role != "tool" and not turn.written.strip():
            raise DataError(f"messages.{index}: the turn of the {turn.role} is empty")
    if turns[-1].role not in ("user", "tool"):
        raise DataError(f"messages: the last turn is the {turns[-1].role}'s; expected the user's or a tool's result")
    return tuple(turns)
