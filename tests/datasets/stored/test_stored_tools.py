"""Turns with tools come back from the cache as they were read, and rows that differ in calls alone are not twins."""

import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.conversation import Message, ToolCall, ToolUse
from didact.datasets.quality.texts import digest
from didact.spec import SourceSpec

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def row(number: int) -> dict[str, Any]:
    call = {"id": "c1", "function": {"name": "add", "arguments": json.dumps({"a": number, "b": "é"})}}
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Go on."}]
    turns += [{"role": "assistant", "content": None, "tool_calls": [call]}]
    turns += [{"role": "tool", "tool_call_id": "c1", "content": "4"}, {"role": "assistant", "content": "4"}]
    return {"messages": turns, "tools": TOOLS if number % 2 else []}


def load(path: Path) -> Dataset:
    source = SourceSpec(name="rows", path=str(path))
    return load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)


def test_tools_survive_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    plain = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    path.write_text("".join(json.dumps(each) + "\n" for each in [row(1), row(2), plain]))
    for _ in ("made", "found in the cache"):
        first, second, third = load(path).train
        assert first.messages[0] == Message("user", "Go on.", tools=ToolUse(offered=json.dumps(TOOLS)))
        assert first.messages[1].tools == ToolUse((ToolCall("add", '{"a": 1, "b": "é"}', "c1"),))
        assert second.messages[1].tools == ToolUse((ToolCall("add", '{"a": 2, "b": "é"}', "c1"),))
        assert second.messages[2] == Message("tool", "4", tools=ToolUse(call_id="c1", name="add"))
        assert [message.tools for message in (second.messages[0], *third.messages)] == [None, None, None]


def test_rows_that_differ_in_a_call_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(number)) + "\n" for number in (1, 3, 1)))
    train = load(path).train
    keys = next(train.key_blocks())
    assert keys.prompts[0] == keys.prompts[2] != keys.prompts[1]
    assert digest(train[0].messages) == digest(train[2].messages) != digest(train[1].messages)
