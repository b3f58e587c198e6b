"""Tools and thoughts over HTTP: offered in the template's own way, calls read back, refused by name where it cannot."""

import importlib.util
import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import openai
import pytest
from fastapi.testclient import TestClient
from typing_extensions import override

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.engine.protocol import Delta
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.backend import Ask, Event, Speech, Started
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE
from tests.fakes.backends import FallibleBackend
from tests.fakes.models import tiny_model
from tests.fakes.registry import ShelfRegistry
from tests.serving.test_gateway import HELLO, events

ADD = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
CALLED = '<think>Sum.</think>\n\nI add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
TEMPLATE = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class SaysACall(FallibleBackend):
    """Answers with thoughts, text and a call, three letters at a time."""

    def __init__(self) -> None:
        super().__init__({})

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        self.asked.append(ask)
        yield Started(1, speech=Speech("hermes", ("<think>", "</think>")))
        for start in range(0, len(CALLED), 3):
            yield Delta(CALLED[start : start + 3], (1,))
        yield Delta("", (1,), "stop")


@pytest.fixture()
def caller(serve_worker: Callable[..., TestClient]) -> TestClient:
    return serve_worker(SaysACall())


def test_calls_and_thoughts_are_told_apart(caller: TestClient) -> None:
    with caller:
        body = {**HELLO, "tools": [ADD]}
        (choice,) = caller.post("/v1/chat/completions", json=body).json()["choices"]
        chunks = events(caller, **body)
        plain = caller.post("/v1/chat/completions", json=HELLO).json()["choices"][0]
    message = choice["message"]
    assert (choice["finish_reason"], message["content"]) == ("tool_calls", "I add.\n")
    assert message["reasoning_content"] == "Sum."
    (call,) = message["tool_calls"]
    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]) == ("function", {"name": "add", "arguments": '{"a": 1}'})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert calls[0]["function"] == {"name": "add", "arguments": ""}
    assert len(calls) > 2
    assert "".join(each["function"]["arguments"] for each in calls) == '{"a": 1}'
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Sum."
    assert "".join(delta.get("content", "") for delta in deltas) == "I add.\n"
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert plain["finish_reason"] == "stop"
    assert "<tool_call>" in plain["message"]["content"]


def test_a_conversation_with_results_reaches_the_model_as_turns(serve_worker: Callable[..., TestClient]) -> None:
    backend = SaysACall()
    call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hm."},
        {"role": "tool", "tool_call_id": "call_1", "content": "2"},
    ]
    with serve_worker(backend) as client:
        official = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client)
        answer = official.chat.completions.create(model="tiny", messages=turns, tools=[ADD])  # type: ignore[arg-type]
    assert answer.choices[0].message.tool_calls is not None
    first, called, result = backend.asked[0].prompt
    assert json.loads(first.tools.offered) == [ADD]
    assert called.tools.calls[0].arguments == '{"a": 1}'
    assert (result.role, result.content, result.tools.call_id) == ("tool", "2", "call_1")


BAD = [
    ({"tools": [{"type": "function"}]}, "tools.0.function"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
    ({"tools": [ADD] * 129}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [ADD], "tool_choice": "always"}, "tool_choice"),
    ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "mul"}}}, "tool_choice"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": "a",
                    "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{}"}}],
                }
            ]
        },
        "messages.0.tool_calls",
    ),
]


@pytest.mark.parametrize(("changes", "param"), BAD, ids=[str(case[0])[:50] for case in BAD])
def test_what_is_wrong_with_tools_is_named(caller: TestClient, changes: dict, param: str) -> None:
    with caller:
        answer = caller.post("/v1/chat/completions", json={**HELLO, **changes})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_a_template_without_tools_refuses_them_by_name(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json={**HELLO, "tools": [ADD]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "tools")
    assert "does not write" in error["message"]
    assert client.post("/v1/chat/completions", json={**HELLO, "tools": [ADD], "tool_choice": "none"}).status_code == 200


def test_a_call_can_be_demanded_without_a_grammar_for_its_arguments(
    tmp_path: Path, serve_worker: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tokenizer = byte_tokenizer(TEMPLATE)
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), tokenizer)
    worker = Worker(engine, tokenizer, AdapterStore(ShelfRegistry(), tmp_path), TINY_BASE)
    brace = str(tokenizer("{")["input_ids"][0])
    body = {**HELLO, "tools": [ADD], "logit_bias": {brace: 100}, "max_tokens": 3}
    try:
        with serve_worker(worker) as client:
            demanded = {"tool_choice": {"type": "function", "function": {"name": "add"}}}
            (choice,) = client.post("/v1/chat/completions", json={**body, **demanded}).json()["choices"]
            free = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    finally:
        worker.close()
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": "{{{"}
    assert choice["finish_reason"] == "length"
    assert (free["content"], free.get("tool_calls")) == ("{{{", None)
