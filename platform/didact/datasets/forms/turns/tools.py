"""Calls, results and tools as people write them -> turns that a template can write in its own syntax.

OpenAI's `tool_calls`, the older `function_call` and `functions`, ShareGPT's turns of `function_call` and `observation`,
and Hermes' marks in the text. What is said in a syntax of its own otherwise stays the text that it is.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from didact.datasets.conversation import Message, ToolCall, ToolUse
from didact.datasets.rows.fields import Record
from didact.datasets.rows.raw_row import BadRow

RESULT_ROLES = frozenset(("tool", "observation", "function", "tool_response", "tool_result", "ipython"))
"""Who speaks where a tool answers."""
CALL_ROLES = frozenset(("function_call", "tool_call"))
"""Who speaks where a turn is calls alone, as JSON text."""
OFFERS = ("tools", "functions")
"""Fields of a row that list what may be called."""
TOOL_FIELDS = frozenset(("tool_calls", "function_call", "tool_call_id"))
"""Fields of a turn that are read here, beside who speaks and what is said."""
_CALLS = ("tool_calls", "function_call")
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)


def tool_message(turn: Mapping[str, Any], role: str, content: Any) -> Message | None:
    """A turn that calls, or that is a result; None for any other.

    Args:
        turn: the turn as it stands.
        role: who speaks, in small letters.
        content: its text; may be null where it calls, and any JSON value where it is a result.

    Raises:
        BadRow: calls or result cannot be read.
    """
    if role in CALL_ROLES:
        return Message("assistant", "", tools=ToolUse(_calls(content, role)))
    if role in RESULT_ROLES:
        name, call_id = (turn.get(key) for key in ("name", "tool_call_id"))
        if not all(value is None or isinstance(value, str) for value in (name, call_id)):
            raise BadRow("wrong_type", "name or tool_call_id of a result is no text")
        return Message("tool", _result(content), tools=ToolUse(call_id=call_id, name=name))
    key = next((key for key in _CALLS if turn.get(key)), None)
    if key is None:
        return None
    content = _joined_parts(content) or ""
    if not isinstance(content, str):
        raise BadRow("wrong_type", f"the text beside {key} is {type(content).__name__}, expected text or null")
    return Message("assistant", content, tools=ToolUse(_calls(turn[key], key)))


def with_tools(record: Record, turns: Sequence[Message]) -> list[Message]:
    """The turns with the row's tools on the first one, calls numbered, and results beside the calls that they answer.

    Raises:
        BadRow: the tools cannot be read, or a result answers nothing.
    """
    offered = next((_offered(record[key], key) for key in OFFERS if record.get(key)), None)
    if offered is None and all(turn.tools is None for turn in turns):
        return list(turns)
    turns = _matched([each for turn in turns for each in _of_marks(turn)])
    said = turns[0].content if turns and turns[0].role == "system" else ""
    if offered and turns and "<tools>" not in said:  # Hermes' rows list them in the system message as well
        turns[0] = replace(turns[0], tools=replace(turns[0].tools or ToolUse(), offered=offered))
    return turns


def without_table_nulls(record: Record) -> Record:
    """A row of a table without what its structs hold for other rows' sake: members of tools and calls that are null.

    A struct of a Parquet or Arrow column has the members of all rows, such as every argument of every function.
    """
    given: dict[str, Any] = {key: _without_nulls(record[key]) for key in OFFERS if record.get(key)}
    for key, turns in record.items():
        if isinstance(turns, list) and any(isinstance(turn, dict) and any(map(turn.get, _CALLS)) for turn in turns):
            given[key] = [
                {name: _without_nulls(value) if name in _CALLS else value for name, value in turn.items()}
                if isinstance(turn, dict)
                else turn
                for turn in turns
            ]
    return {**record, **given} if given else record


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def check_tool_order(turns: Sequence[Message]) -> list[Message]:
    """The turns without results and the calls that they answer, so that what is left goes by turns as any chat does.

    Raises:
        BadRow: a result follows neither a turn of the assistant nor another result.
    """
    before = ""
    for turn in turns:
        if turn.role == "tool" and before not in ("assistant", "tool"):
            raise BadRow("wrong_turns", "a result of a tool follows no call of the assistant")
        before = turn.role
    after = [*(turn.role for turn in turns[1:]), ""]
    calling = [turn.role == "assistant" and following == "tool" for turn, following in zip(turns, after, strict=False)]
    return [turn for turn, calls in zip(turns, calling, strict=True) if turn.role != "tool" and not calls]


def _calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    value = _parsed(value, where)
    return tuple(_call(each, where) for each in (value if isinstance(value, list) else [value]))


def _call(value: Any, where: str) -> ToolCall:
    value = _parsed(value, where)
    function = value.get("function", value) if isinstance(value, dict) else value
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow("wrong_type", f"{where} holds {_short(value)}; expected an object with name and arguments")
    arguments = _parsed(
        function.get("arguments") or function.get("parameters") or {}, f"arguments of {function['name']}"
    )
    if not isinstance(arguments, dict):
        raise BadRow("wrong_type", f"arguments of {function['name']} are {_short(arguments)}; expected an object")
    given = value.get("id")
    return ToolCall(function["name"], _json(arguments), given if isinstance(given, str) else "")


def _result(content: Any) -> str:
    content = _joined_parts(content)
    if content is None:
        return ""
    return content if isinstance(content, str) else _json(content)


def _joined_parts(content: Any) -> Any:
    """The text of a list of text parts; any other value as it is."""
    if not isinstance(content, list) or not content:
        return content
    texts: list[Any] = [
        part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else part for part in content
    ]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def _offered(value: Any, where: str) -> str | None:
    value = _parsed(value, where)
    tools = [_tool(_parsed(each, where), where) for each in (value if isinstance(value, list) else [value])]
    return _json(tools) if tools else None


def _tool(value: Any, where: str) -> dict[str, Any]:
    function = value.get("function", value) if isinstance(value, dict) else value
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow("wrong_type", f"{where} holds {_short(value)}; expected objects with name and parameters")
    return value if "function" in value else {"type": "function", "function": value}


def _of_marks(turn: Message) -> list[Message]:
    """Hermes' rows hold calls and results as JSON between marks in the text."""
    if turn.role == "assistant" and turn.tools is None and "<tool_call>" in turn.content:
        try:
            calls = tuple(_call(found, "<tool_call>") for found in _CALL.findall(turn.content))
        except BadRow:
            return [turn]
        return [replace(turn, content=_CALL.sub("", turn.content).strip(), tools=ToolUse(calls))] if calls else [turn]
    if turn.role == "tool" and (results := _RESULT.findall(turn.content)):
        return [replace(turn, content=found) for found in results]
    return [turn]


def _matched(turns: Sequence[Message]) -> list[Message]:
    """Each call with an id, each result with the id and the name of its call."""
    matched: list[Message] = []
    waiting: list[ToolCall] = []
    num_calls = 0
    for turn in turns:
        use = turn.tools
        if turn.role == "tool" and use is not None:
            call = next((call for call in waiting if call.id == use.call_id), None)
            call = call or next((call for call in waiting if use.name in (None, call.name)), None)
            if call is not None:
                waiting.remove(call)
                turn = replace(turn, tools=replace(use, call_id=call.id, name=use.name or call.name))
        elif use is not None and use.calls:
            numbered = []
            for call in use.calls:
                numbered.append(call if call.id else replace(call, id=f"call{num_calls:05d}"))
                num_calls += 1
            waiting = list(numbered)
            turn = replace(turn, tools=replace(use, calls=tuple(numbered)))
        matched.append(turn)
    return matched


def _parsed(value: Any, where: str) -> Any:
    """A value, or what its JSON text holds."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadRow("broken_json", f"{where} is text, but no JSON: {error}") from None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
