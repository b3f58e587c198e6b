"""The OpenAI API as clients see it: answers, streams, and an error of the right shape for whatever they send."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.registry import ShelfRegistry
from tests.serving.conftest import open_worker

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


def chat(client: TestClient, **changes: object) -> dict:
    answer = client.post("/v1/chat/completions", json={**HELLO, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: TestClient, path: str = "/v1/chat/completions", **body: object) -> list[dict | str]:
    answer = client.post(path, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_chat_answer(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json=HELLO)
    body = answer.json()
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    assert body["system_fingerprint"] == answer.headers["x-didact-model-version"] == "tiny#bbbbbbbbbbbb"
    choice, usage = body["choices"][0], body["usage"]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] in ("stop", "length")
    assert 1 <= usage["completion_tokens"] <= 8
    assert usage["prompt_tokens"] == len("^user\nhello$\n^assistant\n")  # one token for a byte or a mark of ChatML
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_stop_token_ids_end_the_answer(client: TestClient) -> None:
    body = {"model": "tiny", "temperature": 0, "prompt": "abc", "max_tokens": 30}
    text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    number = byte_tokenizer()(text[3])["input_ids"][0]
    cut = client.post("/v1/completions", json={**body, "stop_token_ids": [number]}).json()["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (text[: text.index(text[3])], "stop")


def test_streamed_text_equals_the_whole_answer(client: TestClient) -> None:
    whole = chat(client, max_tokens=20)
    *chunks, usage, done = events(client, **HELLO, max_tokens=20, stream_options={"include_usage": True})
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]


def test_completions_take_texts_and_token_ids(client: TestClient) -> None:
    body = {"model": "tiny", "temperature": 0, "max_tokens": 4}
    answer = client.post("/v1/completions", json={**body, "prompt": ["abc", "xyz"]}).json()
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["prompt_tokens"] == 6
    ids = client.post("/v1/completions", json={**body, "prompt": [64, 65, 66]}).json()
    text = client.post("/v1/completions", json={**body, "prompt": "abc"}).json()
    assert ids["choices"] == text["choices"]
    *chunks, _ = events(client, "/v1/completions", **body, prompt="abc")
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == text["choices"][0]["text"]


def test_several_choices_differ_and_repeat_by_seed(client: TestClient) -> None:
    sampled = {"temperature": 1.5, "n": 3, "seed": 5}
    first, again = chat(client, **sampled), chat(client, **sampled)
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert len(set(texts)) == 3
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert first["usage"]["prompt_tokens"] == 24
    indices = {chunk["choices"][0]["index"] for chunk in events(client, **HELLO, n=3)[:-1]}
    assert indices == {0, 1, 2}


def test_stop_text_ends_the_answer_and_is_cut(client: TestClient) -> None:
    body = {"model": "tiny", "temperature": 0, "prompt": "abc", "max_tokens": 30}
    text = client.post("/v1/completions", json=body).json()["choices"][0]["text"]
    stop = text[6:8]
    cut = client.post("/v1/completions", json={**body, "stop": [stop]}).json()["choices"][0]
    assert cut["text"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"
    *chunks, _ = events(client, "/v1/completions", **body, stop=stop)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == cut["text"]


def test_model_names_choose_versions(client: TestClient, registry: ShelfRegistry) -> None:
    def served(model: str) -> tuple[str, str]:
        body = chat(client, model=model, max_tokens=12)
        return body["system_fingerprint"].partition("#")[0], body["choices"][0]["message"]["content"]

    texts = {}
    for model, version in [("demo", "demo:1"), ("demo@champion", "demo:1"), ("demo:1", "demo:1"), ("demo:2", "demo:2")]:
        fingerprint, texts[model] = served(model)
        assert fingerprint == version
    assert texts["demo"] == texts["demo@champion"] == texts["demo:1"]
    assert len({served("tiny")[1], texts["demo:1"], texts["demo:2"]}) == 3


def test_list_of_models(client: TestClient, registry: ShelfRegistry, adapters: list[Path]) -> None:
    base, demo = client.get("/v1/models").json()["data"]
    assert (base["id"], base["parent"], base["max_model_len"]) == ("tiny", None, 1024)
    assert (demo["id"], demo["parent"], demo["aliases"]) == ("demo", "tiny", ["champion"])
    assert demo["root"].startswith("demo:1#")
    assert client.get("/v1/models/demo@champion").json()["root"] == demo["root"]
    registry.add("late", adapters[2])
    deadline = time.monotonic() + 10
    while len(client.get("/v1/models").json()["data"]) < 3:
        assert time.monotonic() < deadline


BAD = [
    ({"model": "nothing"}, 404, "model_not_found", "model"),
    ({"model": "demo@nobody"}, 404, "model_not_found", "model"),
    ({"model": "demo:99"}, 404, "model_not_found", "model"),
    ({"model": "../../etc/passwd"}, 404, "model_not_found", "model"),
    ({"model": ""}, 400, "invalid_value", "model"),
    ({"model": 7}, 400, "invalid_value", "model"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    ({"messages": "hello"}, 400, "invalid_value", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "user"}]}, 400, "missing_required_parameter", "messages.0.content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "invalid_value", "messages.0.content"),
    ({"messages": [{"role": "user", "content": "x" * 2000}]}, 400, "context_length_exceeded", "messages"),
    ({"temperature": 3}, 400, "invalid_value", "temperature"),
    ({"temperature": "hot"}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"n": 9}, 400, "invalid_value", "n"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"stop": ["x"] * 9}, 400, "invalid_value", "stop"),
    ({"stop": "x" * 65}, 400, "invalid_value", "stop"),
    ({"seed": 2**70}, 400, "invalid_value", "seed"),
    ({"logprobs": 3}, 400, "invalid_value", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, 400, "invalid_value", "top_logprobs"),
    ({"top_logprobs": 2}, 400, "invalid_value", "top_logprobs"),
    ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "tools"),
    ({"logit_bias": {"five": 1}}, 400, "invalid_value", "logit_bias"),
    ({"logit_bias": {"5": 101}}, 400, "invalid_value", "logit_bias"),
    ({"logit_bias": {"99999999": 1}}, 400, "invalid_prompt", "messages"),
    ({"min_p": 1.5}, 400, "invalid_value", "min_p"),
    ({"repetition_penalty": 0}, 400, "invalid_value", "repetition_penalty"),
    ({"no_repeat_ngram_size": 65}, 400, "invalid_value", "no_repeat_ngram_size"),
    ({"min_tokens": 9, "max_tokens": 8}, 400, "invalid_value", "min_tokens"),
    ({"response_format": {"type": "structural_tag"}}, 400, "invalid_value", "response_format.type"),
]


@pytest.mark.parametrize(("changes", "status", "code", "param"), BAD, ids=[str(case[0])[:40] for case in BAD])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named(
    client: TestClient, changes: dict, status: int, code: str, param: str, stream: bool
) -> None:
    answer = client.post("/v1/chat/completions", json={**HELLO, **changes, "stream": stream})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert error["param"].startswith(param)
    assert error["type"] == "invalid_request_error"
    assert "Traceback" not in error["message"]


RAW = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"model": NaN}',
    b"[" * 100_000,
    b'{"messages": "\\ud800"}',
    b"9" * 6000,
]


@pytest.mark.parametrize("body", RAW, ids=[repr(body[:16]) for body in RAW])
def test_bodies_that_are_no_request(client: TestClient, body: bytes) -> None:
    answer = client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_completions_refuse_bad_prompts(client: TestClient) -> None:
    too_long = [40] * 1024
    refusals = {"invalid_prompt": ["", [99999]], "invalid_value": [[], [[]], 5], "context_length_exceeded": [too_long]}
    for prompt, code in [(prompt, code) for code, prompts in refusals.items() for prompt in prompts]:
        answer = client.post("/v1/completions", json={"model": "tiny", "prompt": prompt})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_size_limit_unknown_fields_and_unknown_paths(client: TestClient) -> None:
    large = {**HELLO, "messages": [{"role": "user", "content": "x" * 1_000_001}]}
    assert client.post("/v1/chat/completions", json=large).status_code == 413
    assert chat(client, user="me", metadata={"a": "b"}, max_completion_tokens=1)["usage"]["completion_tokens"] == 1
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert client.get("/v1/chat/completions").status_code == 405


@pytest.mark.fault("S10")
def test_a_body_that_does_not_arrive_is_not_waited_for(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    sent: list[dict] = []

    async def one_piece_and_no_more() -> dict:
        if not sent_piece:
            sent_piece.append(True)
            return {"type": "http.request", "body": b'{"model": ', "more_body": True}
        return await asyncio.Event().wait()

    async def send(message: dict) -> None:
        sent.append(message)

    sent_piece: list[bool] = []
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
    client = serve_worker(worker, body_seconds=0.01)
    asyncio.run(client.app(scope, one_piece_and_no_more, send))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["message"] == (
        "The body had not arrived after 0.01 seconds; 10 bytes had."
    )


def test_keys(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker, api_keys=("sesame", "other")) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sesame"}):
            refused = client.post("/v1/chat/completions", json=HELLO, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert client.get("/v1/models").status_code == 401
        assert client.get("/health").status_code == 200
        accepted = {"authorization": "Bearer other"}
        assert client.post("/v1/chat/completions", json=HELLO, headers=accepted).status_code == 200


@pytest.mark.fault("S11")
def test_a_full_engine_answers_429(
    registry: ShelfRegistry, tmp_path: Path, serve_worker: Callable[..., TestClient]
) -> None:
    with open_worker(registry, tmp_path, max_batch_size=1, max_waiting=1) as worker, serve_worker(worker) as client:
        refused = client.post("/v1/chat/completions", json={**HELLO, "n": 8, "max_tokens": 200, "stream": True})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(refused.headers["retry-after"]) >= 1


def test_timeout_is_told(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker, request_timeout_seconds=1e-6) as client:
        answer = client.post("/v1/chat/completions", json=HELLO)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


def test_an_error_after_the_first_byte_is_an_event(client: TestClient, worker: Worker) -> None:
    calls: list[int] = []

    def break_later(module: object, arguments: tuple, inputs: dict) -> None:
        calls.append(1)
        if len(calls) > 20 and "past_key_values" in inputs:
            raise ValueError("secret details of the machine")

    worker.engine._base.register_forward_pre_hook(break_later, with_kwargs=True)
    received = events(client, **HELLO, max_tokens=200)
    assert received[-1]["error"]["code"] == "generation_failed"
    assert "secret" not in received[-1]["error"]["message"]
    assert any(event["choices"][0]["delta"].get("content") for event in received[:-1])


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/ready", "/v1/nothing", "/v1/models/nobody", "/"])
def test_every_answer_has_one_request_id_the_clients_own_where_it_sent_one(client: TestClient, path: str) -> None:
    for sent, echoed in [("abc-1", True), ("x" * 201, False), ("a b", False)]:
        ids = client.get(path, headers={"x-request-id": sent}).headers.get_list("x-request-id")
        assert len(ids) == 1
        assert (ids == [sent]) == echoed
    first, second = (client.get(path).headers["x-request-id"] for _ in range(2))
    assert first != second


def test_request_ids_of_answers_streams_and_faults(
    client: TestClient, worker: Worker, serve_worker: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes in ({}, {"stream": True}, {"model": "nobody"}, {"temperature": 9}):
        answer = client.post("/v1/chat/completions", json={**HELLO, **changes}, headers={"x-request-id": "one"})
        assert answer.headers.get_list("x-request-id") == ["one"]
    monkeypatch.setattr(worker, "facts", lambda: 1 / 0)
    with serve_worker(worker) as other:
        answer = other.get("/v1/models", headers={"x-request-id": "one"})
    assert (answer.status_code, answer.headers.get_list("x-request-id")) == (500, ["one"])


def test_behind_serve_the_proxy_adds_the_request_id(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker, behind_serve=True) as client:
        for path in ("/v1/models", "/v1/nothing"):
            assert "x-request-id" not in client.get(path, headers={"x-request-id": "one"}).headers


@pytest.mark.fault("S6")
def test_no_answer_names_a_folder_of_the_server(client: TestClient, registry: ShelfRegistry, tmp_path: Path) -> None:
    spoiled = {
        "missing": lambda folder: (folder / "adapter_config.json").unlink(),
        "changed": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"0"),
        "listed": lambda folder: (folder / "adapter.json").write_text("{}"),
        "pickle": lambda folder: (folder / "code.bin").write_bytes(b"0"),
        "linked": lambda folder: (folder / "more.json").symlink_to("/etc/passwd"),
        "contract": lambda folder: (folder / "template_contract.json").write_text("{"),
    }
    for name, spoil in spoiled.items():
        save_tiny_adapter(tmp_path / name, 6)
        registry.add(name, tmp_path / name)
        spoil(tmp_path / name)
        answer = client.post("/v1/chat/completions", json={**HELLO, "model": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_adapter"), answer.text
        assert str(tmp_path) not in answer.text
        assert "/etc" not in answer.text
        assert f"{name}:1" in answer.json()["error"]["message"]


@pytest.mark.fault("S6")
def test_damaged_and_foreign_adapters_are_400(client: TestClient, registry: ShelfRegistry, tmp_path: Path) -> None:
    save_tiny_adapter(tmp_path / "foreign", 5, base_fingerprint="c" * 64)
    save_tiny_adapter(tmp_path / "damaged", 6)
    for name in ("foreign", "damaged"):
        registry.add(name, tmp_path / name)
        assert client.get(f"/v1/models/{name}").status_code == 200
    (tmp_path / "damaged" / "adapter_model.safetensors").write_bytes(b"0")
    for name, words in [("foreign", "trained on base"), ("damaged", "damaged")]:
        answer = client.post("/v1/chat/completions", json={**HELLO, "model": name})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_adapter")
        assert words in answer.json()["error"]["message"]
    assert chat(client, model="demo")["model"] == "demo"


@pytest.mark.fault("S2")
def test_a_promoted_version_that_cannot_be_served_is_told_on_its_card(
    client: TestClient, registry: ShelfRegistry, tmp_path: Path
) -> None:
    assert chat(client, model="demo")["system_fingerprint"].startswith("demo:1#")
    save_tiny_adapter(tmp_path / "foreign", 5, base_fingerprint="c" * 64)
    number = registry.add("demo", tmp_path / "foreign", alias="champion").version
    deadline = time.monotonic() + 20
    while not (problem := client.get("/v1/models/demo").json()["problem"]):
        assert time.monotonic() < deadline
    assert f"demo:{number} cannot be served" in problem and "trained on base" in problem
    assert str(tmp_path) not in problem
    assert chat(client, model="demo")["system_fingerprint"].startswith("demo:1#")


@pytest.mark.fault("S12")
def test_an_unreachable_registry_is_503_for_new_names_only(client: TestClient, registry: ShelfRegistry) -> None:
    chat(client, model="demo")
    registry.down = True
    assert chat(client, model="demo")["system_fingerprint"].startswith("demo:1#")
    told = client.post("/v1/chat/completions", json={**HELLO, "model": "demo:2"})
    assert (told.status_code, told.json()["error"]["code"]) == (503, "registry_unavailable")


def test_pages(client: TestClient) -> None:
    assert client.get("/ready").json()["status"] == "ready"
    page = client.get("/")
    assert "v1/chat/completions" in page.text
    assert "http" not in page.text.replace("http-equiv", "")  # nothing is loaded from elsewhere
    document = client.get("/openapi.json").text
    wanted = set(re.findall(r'"#/components/schemas/([^"]+)"', document))
    assert "ChatRequest" in document and wanted <= set(json.loads(document)["components"]["schemas"])


def test_not_ready_when_the_engine_is_gone(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker) as client:
        assert client.get("/ready").status_code == 200
        worker.close()
        assert client.get("/ready").status_code == 503
