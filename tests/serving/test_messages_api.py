"""Anthropic's interface beside OpenAI's: the same answers, in the form that its clients read."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from didact.errors import TemplateError
from didact.serving.replica.worker import Worker

TURNS = [{"role": "user", "content": "hello"}]
HELLO = {"model": "tiny", "messages": TURNS, "max_tokens": 20, "temperature": 0}


def ask(client: TestClient, path: str = "/v1/messages", **changes: Any) -> dict[str, Any]:
    answer = client.post(path, json={**HELLO, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, **changes: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/messages", json={**HELLO, **changes, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    read = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        read.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
    return read


def openai(client: TestClient, **changes: Any) -> dict[str, Any]:
    return client.post("/v1/chat/completions", json={**HELLO, **changes}).json()


def test_a_message_is_the_chats_answer(client: TestClient) -> None:
    message, chat = ask(client), openai(client)
    assert message["content"] == [{"type": "text", "text": chat["choices"][0]["message"]["content"]}]
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "tiny")
    assert message["id"].startswith("msg_")
    usage = chat["usage"]
    assert message["usage"] == {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
    reason = {"stop": "end_turn", "length": "max_tokens"}[chat["choices"][0]["finish_reason"]]
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, None)


def test_a_system_text_and_parts_are_turns(client: TestClient) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    said = ask(client, messages=parts, system=[{"type": "text", "text": "be kind"}])
    turns = [{"role": "system", "content": "be kind"}, *TURNS]
    assert said["content"][0]["text"] == openai(client, messages=turns)["choices"][0]["message"]["content"]
    counted = client.post("/v1/messages/count_tokens", json={"model": "tiny", "messages": parts, "system": "be kind"})
    assert counted.json() == {"input_tokens": said["usage"]["input_tokens"]}


def test_the_stop_text_that_ended_it_is_named(client: TestClient) -> None:
    text = ask(client)["content"][0]["text"]
    stop = text[3:5]
    cut = ask(client, stop_sequences=["never said", stop])
    assert cut["content"][0]["text"] == text[: text.index(stop)]
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", stop)
    choice = openai(client, stop=["never said", stop])["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    *_, last = [event["delta"] for event in events(client, stop_sequences=[stop]) if event["type"] == "message_delta"]
    assert last == {"stop_reason": "stop_sequence", "stop_sequence": stop}


def test_a_stream_is_the_whole_answer_in_pieces(client: TestClient) -> None:
    whole, read = ask(client), events(client)
    kinds = [event["type"] for event in read]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert "".join(event["delta"]["text"] for event in read[2:-3]) == whole["content"][0]["text"]
    start, end = read[0]["message"], read[-2]
    assert start["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert end["usage"]["output_tokens"] == whole["usage"]["output_tokens"]
    assert end["delta"] == {"stop_reason": whole["stop_reason"], "stop_sequence": None}


@pytest.mark.parametrize(
    ("changes", "status", "kind", "said"),
    [
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"messages": []}, 400, "invalid_request_error", "messages"),
        (
            {"messages": [*TURNS, {"role": "assistant", "content": "I"}]},
            400,
            "invalid_request_error",
            "messages.1.role",
        ),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "invalid_request_error", "messages.0.role"),
        ({"temperature": 1.5}, 400, "invalid_request_error", "temperature"),
        ({"tools": [{"name": "look"}]}, 400, "invalid_request_error", "tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 99}}, 400, "invalid_request_error", "thinking"),
        ({"stop": "x"}, 400, "invalid_request_error", "stop"),
        ({"model": "nobody"}, 404, "not_found_error", "nobody"),
    ],
)
def test_errors_have_anthropics_form(
    client: TestClient, changes: dict[str, Any], status: int, kind: str, said: str
) -> None:
    body = {name: value for name, value in {**HELLO, **changes}.items() if value is not None}
    answer = client.post("/v1/messages", json=body)
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert said in told["error"]["message"]


def test_what_asks_for_nothing_may_stand_there(client: TestClient) -> None:
    ask(client, metadata={"user_id": "7"}, thinking={"type": "disabled"}, tools=[], service_tier="auto")


def test_keys_come_in_its_own_header(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker, api_keys=("sesame",)) as client:
        assert client.post("/v1/messages", json=HELLO).json()["error"]["type"] == "authentication_error"
        for headers in ({"x-api-key": "sesame"}, {"authorization": "Bearer sesame"}):
            assert client.post("/v1/messages", json=HELLO, headers=headers).status_code == 200
        assert client.post("/v1/messages", json=HELLO, headers={"x-api-key": "other"}).status_code == 401


def test_an_error_in_the_middle_is_an_event(
    client: TestClient, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, steps = worker.engine.generate, []

    async def breaks(request: Any) -> Any:
        async for delta in generate(request):
            steps.append(delta)
            if len(steps) > 2:
                raise TemplateError("the text broke")
            yield delta

    monkeypatch.setattr(worker.engine, "generate", breaks)
    read = events(client)
    assert read[-1]["type"] == "error" and "the text broke" in read[-1]["error"]["message"]
    assert "message_stop" not in [event["type"] for event in read]
