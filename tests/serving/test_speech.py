"""Thoughts, text and calls told apart in answers, in every form, wherever the pieces are cut."""

import json

import pytest

from didact.serving.api.speech.calls import CallArguments, CallBegun
from didact.serving.api.speech.reader import AnswerReader, Text, Thought
from didact.serving.replica.backend import Speech
from didact.serving.replica.speech import call_format

HERMES, MISTRAL, LLAMA = (Speech(calls=name) for name in ("hermes", "mistral", "llama3"))
ADD = '{"name": "add", "arguments": {"a": 1, "b": [2, "}\\""]}}'
ADDED = ("add", {"a": 1, "b": [2, '}"']})
ARGUMENTS_FIRST = '{"arguments": {"x": "é<tool"}, "name": "mul"}'
Told = tuple[str, str, list[tuple[str, object]]]


def read(speech: Speech, text: str, size: int, tools: tuple[str, ...] = ("add", "mul")) -> Told:
    """Thoughts, text, calls, from pieces of `size` letters."""
    reader = AnswerReader(speech, tools)
    parts = [part for start in range(0, len(text), size) for part in reader.push(text[start : start + size])]
    parts += reader.finish()
    calls = []
    for begun in (part for part in parts if isinstance(part, CallBegun)):
        pieces = [part.text for part in parts if isinstance(part, CallArguments) and part.index == begun.index]
        calls.append((begun.name, json.loads("".join(pieces))))
    said = "".join(part.text for part in parts if isinstance(part, Text))
    return "".join(part.text for part in parts if isinstance(part, Thought)), said, calls


MUL = ("mul", {"x": "é<tool"})
CASES: list[tuple[Speech, str, Told]] = [
    (HERMES, "Just text < tool.", ("", "Just text < tool.", [])),
    (HERMES, f"<tool_call>\n{ADD}\n</tool_call>", ("", "", [ADDED])),
    (
        HERMES,
        f"Let me.\n<tool_call>\n{ADD}\n</tool_call>\n<tool_call>{ARGUMENTS_FIRST}</tool_call>",
        ("", "Let me.\n", [ADDED, MUL]),
    ),
    (HERMES, f"<tool_call>[{ADD}, {ADD}]</tool_call>", ("", "", [ADDED, ADDED])),
    (HERMES, f"<tool_call>{ADD}", ("", "", [ADDED])),
    (HERMES, "<tool_call>no call</tool_call>", ("", "<tool_call>no call</tool_call>", [])),
    (HERMES, "a <tool_ca", ("", "a <tool_ca", [])),
    (MISTRAL, f"[TOOL_CALLS] [{ADD}, {ADD}]", ("", "", [ADDED, ADDED])),
    (MISTRAL, f"[{ADD}]", ("", "", [ADDED])),
    (MISTRAL, 'add[ARGS]{"a": 1}', ("", "", [("add", {"a": 1})])),
    (MISTRAL, 'add{"a": 1}', ("", "", [("add", {"a": 1})])),
    (MISTRAL, '[TOOL_CALLS]add{"a": 1}', ("", "", [("add", {"a": 1})])),
    (MISTRAL, '[TOOL_CALLS] add [ARGS]{"a": 1}', ("", "", [("add", {"a": 1})])),
    (
        HERMES,
        '<tool_call>{"name": "add", "arguments": {"s": "</tool_call>"}}</tool_call>',
        ("", "", [("add", {"s": "</tool_call>"})]),
    ),
    (
        HERMES,
        '<tool_call>{"arguments": {"s": "</tool_call>"}, "name": "add"}</tool_call>',
        ("", "", [("add", {"s": "</tool_call>"})]),
    ),
    (
        HERMES,
        '<tool_call>{"arguments": "x", "name": "add"}</tool_call>',
        ("", '<tool_call>{"arguments": "x", "name": "add"}</tool_call>', []),
    ),
    (MISTRAL, "adding two numbers", ("", "adding two numbers", [])),
    (MISTRAL, "[1, 2] is a list", ("", "[1, 2] is a list", [])),
    (LLAMA, '{"name": "add", "parameters": {"a": 1}}', ("", "", [("add", {"a": 1})])),
    (
        LLAMA,
        '<|python_tag|>{"name": "add", "parameters": {}}; {"name": "mul", "parameters": {"x": 2}}',
        ("", "", [("add", {}), ("mul", {"x": 2})]),
    ),
    (LLAMA, '{"name": "other", "parameters": {}}', ("", '{"name": "other", "parameters": {}}', [])),
    (LLAMA, '{"name": "add", "parameters": {}} and more', ("", "and more", [("add", {})])),
    (LLAMA, '{"a": 1}', ("", '{"a": 1}', [])),
    (LLAMA, '{"name": "ad', ("", '{"name": "ad', [])),
    (Speech(thoughts=("<think>", "</think>")), "<think>\nhm</think>\n\nYes", ("hm", "Yes", [])),
    (Speech(thoughts=("<think>", "</think>")), "Yes <think>", ("", "Yes <think>", [])),
    (Speech(thoughts=("<think>", "</think>")), "<think>only", ("only", "", [])),
    (Speech(thoughts=("<think>", "</think>"), begun="<think>"), "\nhm</think>Yes", ("hm", "Yes", [])),
    (Speech("hermes", ("<think>", "</think>")), f"<think>a</think>\n<tool_call>{ADD}</tool_call>", ("a", "", [ADDED])),
    (
        Speech("hermes", begun='<tool_call>\n{"name": "add", "arguments": '),
        '{"a": 1}}\n</tool_call>',
        ("", "", [("add", {"a": 1})]),
    ),
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("speech", "text", "told"), CASES, ids=[text[:40] for _, text, _ in CASES])
def test_answers_are_read(speech: Speech, text: str, told: Told, size: int) -> None:
    assert read(speech, text, size) == told


def test_arguments_are_told_while_they_come() -> None:
    reader = AnswerReader(HERMES, ["add"])
    assert reader.push('<tool_call>{"name": "add", "arguments": {"a"') == [
        CallBegun(0, "add"),
        CallArguments(0, '{"a"'),
    ]
    assert reader.push(": 1") == [CallArguments(0, ": 1")]
    assert reader.push("}}</tool_call>") == [CallArguments(0, "}")]
    assert reader.has_called


def test_without_tools_calls_are_text() -> None:
    assert read(HERMES, f"<tool_call>{ADD}</tool_call>", 3, tools=())[1] == f"<tool_call>{ADD}</tool_call>"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ tools }}<tool_call>{{ call }}</tool_call>", "hermes"),
        ("<tool_call><function={{ name }}>", None),
        ("[AVAILABLE_TOOLS][TOOL_CALLS]", "mistral"),
        ('ipython {"name": , "parameters": }', "llama3"),
        ("{{ messages }}", None),
    ],
)
def test_the_form_is_told_from_the_template(template: str, name: str | None) -> None:
    assert call_format(template) == name


def test_arguments_that_are_no_object_are_text_where_the_answer_came_whole() -> None:
    broken = 'I add.\n<tool_call>{"name": "add", "arguments": {"a": ]}}</tool_call>'
    reader = AnswerReader(HERMES, ("add",))
    assert reader.read_whole(broken) == [Text(broken)] and not reader.has_called
    thinks = AnswerReader(Speech("hermes", ("<think>", "</think>")), ("add",))
    assert thinks.read_whole(f"<think>hm</think>\n{broken}") == [Thought("hm"), Text(broken)]


def test_one_call_alone_is_told_where_one_is_wanted() -> None:
    text = f"<tool_call>{ADD}</tool_call>\n<tool_call>{ADD}</tool_call>"
    reader = AnswerReader(HERMES, ("add",), one_call=True)
    parts = [part for letter in text for part in reader.push(letter)] + reader.finish()
    assert {part.index for part in parts if isinstance(part, CallBegun | CallArguments)} == {0}
    assert sum(isinstance(part, CallBegun) for part in parts) == 1
