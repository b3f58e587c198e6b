"""Calls, results and tools in the forms that people have."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets.conversation import Message, ToolCall, ToolUse
from didact.datasets.forms.table_of_forms import recognise, to_conversation
from didact.datasets.load import first_rows
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.datasets.sources.opening import open_source
from didact.spec import SourceSpec

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
ASKED = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "4"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
ADD = ToolCall("add", '{"a": 2, "b": 2}', "c1")


def read(record: dict[str, Any]) -> tuple[Message, ...]:
    form = recognise(record)
    assert form is not None
    return to_conversation(form, RawRow("rows.jsonl", 1, 0, json.dumps(record).encode()), 0).messages


def openai(*turns: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    return read({"messages": list(turns), **fields})


def test_openai_calls_and_results() -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    turns = openai(ASKED, calling, {"role": "tool", "tool_call_id": "c1", "content": "4"}, SAID, tools=[TOOL])
    assert turns == (
        Message("user", "2 + 2?", tools=ToolUse(offered=json.dumps([TOOL]))),
        Message("assistant", "", tools=ToolUse((ADD,))),
        Message("tool", "4", tools=ToolUse(call_id="c1", name="add")),
        Message("assistant", "4"),
    )


@pytest.mark.parametrize(
    "calling",
    [
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": [], "tool_calls": [CALL]},
        {"role": "assistant", "content": None, "tool_calls": json.dumps([CALL])},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "name": "add", "arguments": {"a": 2, "b": 2}}],
        },
        {"role": "assistant", "content": None, "function_call": None, "tool_calls": [CALL]},
    ],
)
def test_ways_to_write_a_call(calling: dict[str, Any]) -> None:
    calling = {"content": None, **calling}
    assert openai(ASKED, calling)[1] == Message("assistant", "", tools=ToolUse((ADD,)))


@pytest.mark.parametrize(
    ("content", "text"),
    [("4", "4"), (None, ""), ({"sum": 4}, '{"sum": 4}'), (4, "4"), ([{"type": "text", "text": "4"}], "4")],
)
def test_ways_to_write_a_result(content: Any, text: str) -> None:
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": content}
    assert openai(ASKED, calling, result, SAID)[2].content == text


def test_the_older_function_call_without_ids() -> None:
    calling = {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": '{"a": 2}'}}
    turns = openai(
        ASKED, calling, {"role": "function", "name": "add", "content": "2"}, SAID, functions=[TOOL["function"]]
    )
    assert turns[1].tools == ToolUse((ToolCall("add", '{"a": 2}', "call00000"),))
    assert turns[2] == Message("tool", "2", tools=ToolUse(call_id="call00000", name="add"))
    assert turns[0].tools == ToolUse(offered=json.dumps([TOOL]))


def test_results_find_their_calls_by_id_or_by_order() -> None:
    two = [CALL, {**CALL, "id": "c2", "function": {"name": "sub", "arguments": "{}"}}]
    calling = {"role": "assistant", "content": "Both.", "tool_calls": two}
    by_id = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("c2", "c1")]
    turns = openai(ASKED, calling, *by_id, SAID)
    assert [(turn.tools.call_id, turn.tools.name) for turn in turns[2:4] if turn.tools] == [
        ("c2", "sub"),
        ("c1", "add"),
    ]
    assert turns[1].content == "Both."
    turns = openai(ASKED, calling, {"role": "tool", "content": "x"}, {"role": "tool", "content": "y"}, SAID)
    assert [turn.tools.call_id for turn in turns[2:4] if turn.tools] == ["c1", "c2"]


def test_sharegpt_with_tools_as_text() -> None:
    turns = read(
        {
            "conversations": [
                {"from": "human", "value": "2 + 2?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 2}}'},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "4"},
            ],
            "system": "Count.",
            "tools": json.dumps([TOOL["function"]]),
        }
    )
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "assistant"]
    assert turns[0] == Message("system", "Count.", tools=ToolUse(offered=json.dumps([TOOL])))
    assert turns[2].tools == ToolUse((ToolCall("add", '{"a": 2, "b": 2}', "call00000"),))
    assert turns[3].tools == ToolUse(call_id="call00000", name="add")


def test_marks_of_hermes_become_calls_and_results() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'
    turns = read(
        {
            "conversations": [
                {"from": "system", "value": "Tools: <tools>[...]</tools>"},
                {"from": "human", "value": "2 + 2?"},
                {"from": "gpt", "value": f"Two calls.\n{call}\n{call}"},
                {"from": "tool", "value": "<tool_response>\n4\n</tool_response>\n<tool_response>\n5\n</tool_response>"},
                {"from": "gpt", "value": "4 or 5"},
            ],
            "tools": [TOOL],
        }
    )
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert turns[0].tools is None  # the system message says them already
    assert turns[2].content == "Two calls." and turns[2].tools is not None and len(turns[2].tools.calls) == 2
    assert [turn.content for turn in turns[3:5]] == ["4", "5"]


def test_calls_in_a_syntax_of_their_own_stay_text() -> None:
    turns = read(
        {
            "conversations": [
                {"from": "human", "value": "2 + 2?"},
                {"from": "gpt", "value": "[add(2, 2)]"},
                {"from": "tool", "value": "4"},
                {"from": "gpt", "value": "4"},
            ]
        }
    )
    assert turns[1] == Message("assistant", "[add(2, 2)]")


def test_developer_is_another_word_for_system() -> None:
    assert openai({"role": "developer", "content": "Be kind."}, ASKED, SAID)[0] == Message("system", "Be kind.")


def test_a_question_with_the_calls_that_answer_it() -> None:
    calls = [{"name": "add", "arguments": {"a": 2}}, {"name": "add", "arguments": {"a": 3}}]
    record = {"id": 1, "query": "2 + 2?", "answers": json.dumps(calls), "tools": json.dumps([TOOL["function"]])}
    turns = read(record)
    assert turns[0] == Message("user", "2 + 2?", tools=ToolUse(offered=json.dumps([TOOL])))
    assert turns[1].tools == ToolUse(
        (ToolCall("add", '{"a": 2}', "call00000"), ToolCall("add", '{"a": 3}', "call00001"))
    )
    for nothing in ("[]", [], None):
        with pytest.raises(BadRow, match="empty_output"):
            read({**record, "answers": nothing})


def test_members_that_a_table_adds_for_other_rows_are_left_out(tmp_path: Path) -> None:
    def row(**arguments: int) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "add", "arguments": arguments}}
        tool = {"type": "function", "function": {"name": "add", "parameters": {"properties": arguments}}}
        turns = [ASKED, {"role": "assistant", "content": None, "tool_calls": [call]}]
        return {"messages": [*turns, {"role": "tool", "content": "4"}, SAID], "tools": [tool]}

    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row(a=2), row(b=3)]), path)
    found = first_rows(open_source(SourceSpec(name="s", path=str(path))), 2)
    calls = [each.messages[1].tools.calls[0].arguments for each in found.accepted if each.messages[1].tools]
    assert calls == ['{"a": 2}', '{"b": 3}']
    offered = [each.messages[0].tools.offered for each in found.accepted if each.messages[0].tools]
    assert all("null" not in each for each in offered if each) and len(offered) == 2
    written = openai(ASKED, {"role": "assistant", "function_call": {"name": "add", "arguments": {"a": None}}})
    assert written[1].tools == ToolUse((ToolCall("add", '{"a": null}', "call00000"),))


def test_rows_without_tools_hold_none() -> None:
    for nothing in ([], None, "[]"):
        assert all(turn.tools is None for turn in openai(ASKED, SAID, tools=nothing))


@pytest.mark.parametrize(
    ("turns", "fields", "reason", "words"),
    [
        ([ASKED, {"role": "assistant", "content": None}], {}, "wrong_type", "content"),
        ([ASKED, {"role": "tool", "content": "4"}, SAID], {}, "wrong_turns", "follows no call"),
        ([ASKED, {**SAID, "tool_calls": [{"function": {"arguments": "{}"}}]}], {}, "wrong_type", "name and arguments"),
        ([ASKED, {**SAID, "tool_calls": ["add"]}], {}, "broken_json", "tool_calls"),
        ([ASKED, {**SAID, "function_call": {"name": "add", "arguments": "{2"}}], {}, "broken_json", "arguments of add"),
        ([ASKED, {**SAID, "function_call": {"name": "add", "arguments": "[2]"}}], {}, "wrong_type", "arguments of add"),
        ([ASKED, SAID], {"tools": ["add"]}, "broken_json", "tools"),
        ([ASKED, SAID], {"tools": [{"description": "adds"}]}, "wrong_type", "tools"),
        ([ASKED, SAID], {"tools": 3}, "wrong_type", "tools"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(
    turns: list[dict[str, Any]], fields: dict[str, Any], reason: str, words: str
) -> None:
    with pytest.raises(BadRow) as refused:
        openai(*turns, **fields)
    assert refused.value.reason == reason
    assert words in refused.value.detail
