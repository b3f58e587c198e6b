"""Rows of the fault table that need no Ray: keys on every route, names that are paths, sizes, secrets, churn."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from didact.serving.api.keys import KeyFile
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry
from tests.serving.conftest import open_worker

OPEN = {"/", "/health", "/ready", "/version"}
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 4}


def ask(client: TestClient, **changes: Any) -> Any:
    return client.post("/v1/chat/completions", json={**HELLO, **changes})


@pytest.mark.fault("X1")
def test_every_route_but_health_asks_for_a_key(
    worker: Worker, serve_worker: Callable[..., TestClient], tmp_path: Path
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    expired, revoked = file.add("late", days=-1), file.add("gone")
    file.revoke("gone")
    roots = {"adapter_roots": (tmp_path,), "loaded_record": tmp_path / "loaded.json"}
    with serve_worker(worker, keys_file=file.path, **roots) as client:
        routes = [route for route in client.app.routes if isinstance(route, APIRoute)]  # type: ignore[attr-defined]
        asked = 0
        for route in routes:
            path = re.sub(r"{[^}]*}", "x", route.path)
            for method in route.methods:
                for key in (None, "wrong", "", expired, revoked):
                    headers = {} if key is None else {"authorization": f"Bearer {key}", "x-api-key": key}
                    status = client.request(method, path, headers=headers, json={}).status_code
                    assert status == (200 if path in OPEN else 401), (method, path, key)
                    asked += path not in OPEN
    assert asked >= 5 * 12


PATHS = [
    "../x",
    "%2e%2e/x",
    "..%2fx",
    "..\\x",
    "\0",
    "demo\0",
    "/etc/passwd",
    "x" * 300,
    "\u2024\u2024/x",
    "demo:1/..",
    "a b",
]


@pytest.mark.fault("X2")
def test_names_that_are_paths_are_names_of_nothing(client: TestClient, registry: ShelfRegistry) -> None:
    assert ask(client).status_code == 200
    before = registry.questions
    for name in PATHS:
        for answer in (ask(client, model=name), client.post("/tokenize", json={"model": name, "prompt": "x"})):
            assert answer.status_code == 404, (name, answer.text)
            assert answer.json()["error"]["code"] == "model_not_found"
    assert registry.questions - before < 200  # looks of the background, none for a name that is impossible


@pytest.mark.fault("X3")
def test_keys_and_words_are_in_no_error_and_no_log(
    worker: Worker,
    serve_worker: Callable[..., TestClient],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", "canary-hub")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-mlflow")
    secret = KeyFile(tmp_path / "keys.json").add("ann")
    told = []
    with serve_worker(worker, keys_file=tmp_path / "keys.json", api_keys=("canary-plain",)) as client:
        for key in (secret, "canary-plain", "canary-wrong"):
            headers = {"authorization": f"Bearer {key}"}
            for body in ({}, {**HELLO, "temperature": 9}, {**HELLO, "model": "nobody"}, HELLO):
                answer = client.post("/v1/chat/completions", json=body, headers=headers)
                told.append(answer.text + json.dumps(dict(answer.headers)))
            told.append(client.get("/v1/models", headers=headers).text)
            told.append(client.get("/metrics", headers=headers).text)
    text = "".join(told) + caplog.text + (tmp_path / "keys.json").read_text()
    assert "canary" not in text and secret not in text
    assert "hello" not in caplog.text


@pytest.mark.fault("S9")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/messages", "max_tokens"),
    ],
)
def test_an_answer_longer_than_the_context_is_refused_before_the_model(
    client: TestClient, path: str, field: str, stream: bool
) -> None:
    longest = client.get("/v1/models/tiny").json()["max_model_len"]
    before = client.get("/ready").json()["prompt_tokens"]
    asked = {"prompt": "hello"} if path == "/v1/completions" else {"messages": HELLO["messages"]}
    for wanted in (longest + 1, 10**9, 10**30):
        refused = client.post(path, json={"model": "tiny", **asked, field: wanted, "stream": stream})
        assert refused.status_code == 400, refused.text
        told = refused.json()["error"]
        assert field in told["message"]
        assert str(wanted) in told["message"]
        assert f"{longest} tokens" in told["message"]
    assert client.get("/ready").json()["prompt_tokens"] == before


def test_an_answer_as_long_as_the_context_ends_with_it(client: TestClient) -> None:
    longest = client.get("/v1/models/tiny").json()["max_model_len"]
    answer = ask(client, max_tokens=longest, stop=["\0"])
    assert answer.status_code == 200
    assert answer.json()["usage"]["total_tokens"] <= longest


@pytest.mark.fault("S9")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"messages": [{"role": "user", "content": "x" * 2000}]}, 400),
        ({"messages": [{"role": "user", "content": "x"}] * 10_000}, 400),
        ({"messages": [{"role": "user", "content": "x" * 60_000_000}]}, 413),
        ({"n": 10**9}, 400),
        ({"seed": 10**400}, 400),
        ({"metadata": {"a": [[]] * 1000}}, 200),
    ],
    ids=["long", "many", "60MB", "n", "seed", "metadata"],
)
def test_what_is_too_large_never_reaches_the_model(client: TestClient, changes: dict, status: int) -> None:
    before = client.get("/ready").json()["prompt_tokens"]
    answer = ask(client, **changes)
    assert answer.status_code == status, answer.text[:300]
    assert (client.get("/ready").json()["prompt_tokens"] > before) == (status == 200)


@pytest.mark.fault("S7")
def test_two_adapters_that_take_turns_in_one_place_never_mix(
    registry: ShelfRegistry, tmp_path: Path, serve_worker: Callable[..., TestClient]
) -> None:
    names = ["demo:1", "demo:2"]
    prompts = [f"{number}+{number}" for number in range(20)]
    with open_worker(registry, tmp_path, max_adapters=1) as worker, serve_worker(worker) as client:

        def text(name: str, prompt: str) -> str:
            body = {"model": name, "prompt": prompt, "max_tokens": 6, "temperature": 0}
            answer = client.post("/v1/completions", json=body)
            assert answer.status_code == 200
            return str(answer.json()["choices"][0]["text"])

        alone = {(name, prompt): text(name, prompt) for name in names for prompt in prompts}
        turns = {(name, prompt): text(name, prompt) for prompt in prompts for name in names}
        stats = client.get("/ready").json()
    assert turns == alone
    assert sum(alone["demo:1", prompt] != alone["demo:2", prompt] for prompt in prompts) > 10
    assert stats["adapter_evictions"] >= 2 * len(prompts) - 2
