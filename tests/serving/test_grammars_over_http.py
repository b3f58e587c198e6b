"""Answers of a form over HTTP: OpenAI's `response_format` with its own client, vLLM's names, tools, refusals."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import jsonschema
import openai
import pytest
from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE
from tests.fakes.models import tiny_model
from tests.fakes.registry import ShelfRegistry
from tests.serving.test_gateway import HELLO, events
from tests.serving.test_tools_over_http import TEMPLATE

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"type": "string", "pattern": "^[a-z]{4}$"}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}
BLANKS = {str(token): -100 for token in byte_tokenizer().encode(" \t\r\n", add_special_tokens=False)}
HOT = {**HELLO, "temperature": 2, "max_tokens": 100, "logit_bias": BLANKS}
needs_llguidance = pytest.mark.skipif(importlib.util.find_spec("llguidance") is None, reason="needs didact[grammar]")


@needs_llguidance
def test_the_official_client_gets_json_of_its_schema(client: TestClient) -> None:
    official = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client)
    asked = {
        "model": "tiny",
        "messages": HELLO["messages"],
        "temperature": 2,
        "max_tokens": 100,
        "seed": 1,
        "logit_bias": BLANKS,
    }
    answer = official.chat.completions.create(**asked, n=2, logprobs=True, response_format=FORMAT)  # type: ignore
    texts = [choice.message.content or "" for choice in answer.choices]
    for choice, text in zip(answer.choices, texts, strict=True):
        jsonschema.validate(json.loads(text), SCHEMA)
        assert choice.finish_reason == "stop"
        assert "".join(each.token for each in choice.logprobs.content) == text  # type: ignore[union-attr]
    assert texts[0] != texts[1]
    pieces = official.chat.completions.create(**asked, stream=True, response_format=FORMAT)  # type: ignore
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == texts[0]


@needs_llguidance
@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"structured_outputs": {"regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"structured_outputs": {"choice": ["yes", "no"], "json_object": False, "json": None}}, "yes|no"),
        ({"structured_outputs": {"grammar": 'root ::= "x" | "y"'}}, "x|y"),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, r"(?s)\{.*\}"),
        ({"guided_json": SCHEMA}, r"(?s)\{.*\}"),
        ({"guided_regex": "c{3}"}, "ccc"),
        ({"guided_choice": ["maybe"]}, "maybe"),
        ({"guided_grammar": 'start: "z"'}, "z"),
        ({"response_format": FORMAT, "tools": None}, r"(?s)\{.*\}"),
    ],
    ids=lambda each: str(each)[:50],
)
def test_vllms_names_mean_the_same(client: TestClient, changes: dict, fits: str) -> None:
    chat = client.post("/v1/chat/completions", json={**HOT, **changes})
    assert chat.status_code == 200, chat.text
    assert re.fullmatch(fits, chat.json()["choices"][0]["message"]["content"])
    plain = {"model": "tiny", "prompt": "x", "max_tokens": 100, "logit_bias": BLANKS, **changes}
    assert re.fullmatch(fits, client.post("/v1/completions", json=plain).json()["choices"][0]["text"])


BAD = [
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    ({"response_format": {"type": "grammar"}}, "invalid_value", "response_format.type"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "shema": {}}}},
        "invalid_value",
        "response_format.json_schema.shema",
    ),
    ({"guided_json": "{"}, "invalid_value", "guided_json"),
    ({"guided_choice": ["a", ""]}, "invalid_value", "guided_choice"),
    ({"guided_regex": ""}, "invalid_value", "guided_regex"),
    ({"structured_outputs": {"structural_tag": "x"}}, "invalid_value", "structured_outputs.structural_tag"),
    ({"structured_outputs": {"json_object": 1}}, "invalid_value", "structured_outputs.json_object"),
    ({"guided_regex": "a", "guided_choice": ["a"]}, "invalid_value", "guided_choice"),
    ({"guided_regex": "a" * 70_000}, "invalid_value", "guided_regex"),
    ({"priority": 2**31}, "invalid_value", "priority"),
    ({"guided_regex": "a", "ignore_eos": True}, "invalid_value", "ignore_eos"),
]
UNFOLLOWED = [
    ({"guided_regex": "(("}, "guided_regex"),
    ({"guided_grammar": "start: nothing"}, "guided_grammar"),
    ({"guided_grammar": "start"}, "guided_grammar"),
    ({"guided_json": {"type": "array", "uniqueItems": True}}, "guided_json"),
]


@pytest.mark.parametrize(("changes", "code", "param"), BAD, ids=[str(case[0])[:60] for case in BAD])
def test_what_is_no_form_is_named(client: TestClient, changes: dict, code: str, param: str) -> None:
    answer = client.post("/v1/chat/completions", json={**HELLO, **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
    assert error["message"].startswith(f"{param}: ")


@needs_llguidance
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("changes", "param"), UNFOLLOWED, ids=[str(case[0])[:60] for case in UNFOLLOWED])
def test_what_cannot_be_followed_is_a_400(client: TestClient, changes: dict, param: str, stream: bool) -> None:
    body = json.dumps({**HELLO, **changes, "stream": stream})
    answer = client.post("/v1/chat/completions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_grammar", param)
    assert error["message"].startswith(f"{param}: ")


def test_without_the_library_forms_are_refused_by_name(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = client.post("/v1/chat/completions", json={**HELLO, "response_format": {"type": "json_object"}})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
    assert error["param"] == "response_format"
    assert "pip install 'didact[grammar]'" in error["message"]


@needs_llguidance
def test_a_demanded_call_fits_its_schema(tmp_path: Path, serve_worker: Callable[..., TestClient]) -> None:
    tokenizer = byte_tokenizer(TEMPLATE)
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), tokenizer)
    worker = Worker(engine, tokenizer, AdapterStore(ShelfRegistry(), tmp_path), TINY_BASE)
    tool = {"type": "function", "function": {"name": "judge", "parameters": SCHEMA}}
    named = {"type": "function", "function": {"name": "judge"}}
    try:
        with serve_worker(worker) as client:
            found = [
                client.post("/v1/chat/completions", json={**HOT, "tools": [tool], "tool_choice": choice, "seed": 3})
                for choice in (named, "required")
            ]
            pieces = events(client, **HOT, tools=[tool], tool_choice=named, seed=3)
            both = {**HOT, "tools": [tool], "tool_choice": "required", "response_format": {"type": "json_object"}}
            refused = client.post("/v1/chat/completions", json=both)
    finally:
        worker.close()
    for each in found:
        (choice,) = each.json()["choices"]
        for call in choice["message"]["tool_calls"]:
            assert call["function"]["name"] == "judge"
            jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    called = [call for piece in pieces[:-1] for call in piece["choices"][0]["delta"].get("tool_calls", [])]
    told = "".join(call["function"]["arguments"] for call in called)
    assert told == found[0].json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tool_choice")
