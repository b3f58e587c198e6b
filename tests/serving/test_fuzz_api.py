"""Whatever the schema allows, and much that it forbids, sent to every route: no 500, no hang, and nothing stays of it.

pyproject.toml keeps schemathesis' plugin from pytest, which it does not fit: its API is used.
"""

import asyncio
import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.api.keys import KeyFile
from didact.serving.batch.routes import Batches
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from didact.spec import BatchesSpec
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.registry import ShelfRegistry
from tests.serving.conftest import open_worker
from tests.serving.test_judge_by_own_server import served

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]
SECONDS = 30
"""For any answer; the server gives up on one after two seconds."""
TURNS = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "tiny", "messages": TURNS, "max_tokens": 2},
    "/v1/completions": {"model": "demo", "prompt": "hello", "max_tokens": 2},
    "/v1/messages": {"model": "tiny", "messages": TURNS, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": TURNS},
    "/v1/load_lora_adapter": {"lora_name": "mine", "lora_path": "mine"},
    "/v1/unload_lora_adapter": {"lora_name": "mine"},
    "/v1/batches": {"input_file_id": "file-1", "endpoint": "/v1/completions", "completion_window": "24h"},
    "/tokenize": {"model": "tiny", "prompt": "hello"},
    "/detokenize": {"model": "tiny", "tokens": [104]},
}
OTHERS = [
    *("/health", "/metrics", "/ready", "/tokenizer_info", "/v1/batches/{batch_id}", "/v1/batches/{batch_id}/cancel"),
    *("/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content", "/v1/models", "/v1/models/{name}", "/version"),
]
FIELDS = [
    *("temperature", "top_p", "top_k", "min_p", "n", "stop", "stop_token_ids", "seed", "logit_bias", "logprobs"),
    *("top_logprobs", "presence_penalty", "frequency_penalty", "repetition_penalty", "no_repeat_ngram_size", "echo"),
    *("min_tokens", "ignore_eos", "num_beams", "length_penalty", "response_format", "structured_outputs", "tools"),
    *("tool_choice", "stream", "stream_options", "priority", "return_token_ids", "metadata", "system", "user"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar", "thinking", "stop_sequences", "best_of"),
]
NUMBERS = st.sampled_from([0, 1, -1, 2, 0.5, -0.5, 1e-320, 1e308, 2**31, 2**63, -(2**63), 2**64, 10**40, 1e400])
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "\x00", "\ud800", "..", "../x", "http://169.254.169.254/", "9" * 5000, "(" * 300, "a" * 20_000]
    ),
)
NAMES = ["type", "json", "role", "content", "schema", "text", "0"]
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(TEXTS, st.sampled_from(NAMES)), inner, max_size=4),
    ),
    max_leaves=8,
)  # fmt: skip
FUZZ = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)


@dataclass(frozen=True)
class Fuzzed:
    """A running gateway with all that it can have."""

    url: str
    client: httpx.Client
    worker: Worker
    scratch: Path

    def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self.client.request(method, path, **request)
        check(answer.status_code, answer.text, answer.headers.get("content-type", ""))
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    registry = ShelfRegistry()
    for number, name in enumerate(("demo", "root/mine"), 1):
        save_tiny_adapter(folder / name, number)
    registry.add("demo", folder / "demo", alias="champion")
    limits = GatewaySettings(
        max_new_tokens=4,
        request_timeout_seconds=2,
        keys_file=folder / "keys.json",
        adapter_roots=(folder / "root",),
        loaded_record=folder / "state" / "loaded.json",
    )
    key = KeyFile(folder / "keys.json").add("fuzz", roles=("admin", "metrics"))
    batches = Batches(BatchesSpec(folder=str(folder / "batches"), max_active=4))
    with open_worker(registry, Path(folder)) as worker:
        catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=1)
        headers = {"authorization": f"Bearer {key}"}
        with (
            served(build_gateway(worker, catalog, limits, extensions=[batches])) as url,
            httpx.Client(base_url=url.removesuffix("/v1"), headers=headers, timeout=SECONDS) as client,
        ):
            yield Fuzzed(url.removesuffix("/v1"), client, worker, folder / "batches")


def check(status: int, text: str, kind: str) -> None:
    """An answer, or an error in words; 504 for what took too long, 500 never."""
    assert status < 500 or status == 504, (status, text)
    if status >= 400 and text:
        assert "json" in kind and '"message"' in text, (status, text)
    assert "Traceback" not in text


def idle(worker: Worker) -> bool:
    """Whether the engine has nothing to do and holds no row."""
    stats = worker.engine.stats()
    return (stats.num_running, stats.num_waiting) == (0, 0)


def test_every_route_is_asked(server: Fuzzed) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    assert {result.ok().path for result in schema.get_all_operations()} == {*BODIES, *OTHERS}


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", [*BODIES, *OTHERS])
def test_no_request_ends_in_a_500(server: Fuzzed, path: str, mode: str) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json").include(path=path)
    for route in (result.ok() for result in schema.get_all_operations()):

        @given(case=route.as_strategy(generation_mode=GenerationMode[mode]))
        @settings(FUZZ, max_examples=25)
        def send(case: "schemathesis.Case") -> None:
            if isinstance(case.body, dict) and len(str(case.body)) % 2:
                case.body["model"] = "tiny"  # half of the requests reach the model
            answer = case.call(timeout=SECONDS, headers=dict(server.client.headers))
            check(answer.status_code, answer.text, " ".join(answer.headers.get("content-type", ())))

        try:
            send()
        except Unsatisfiable:  # a route without parameters has nothing that could be wrong
            assert mode == "NEGATIVE"


@pytest.mark.parametrize("path", BODIES)
def test_no_field_ends_in_a_500(server: Fuzzed, path: str) -> None:
    @given(st.dictionaries(st.sampled_from([*FIELDS, *BODIES[path]]), JUNK, min_size=1, max_size=3))
    @settings(FUZZ, max_examples=60)
    def send(changes: dict[str, Any]) -> None:
        body = {**BODIES[path], **changes}
        body = {name: value for name, value in body.items() if value is not None}
        server.send("POST", path, content=as_json(body), headers={"content-type": "application/json"})

    send()


def as_json(value: Any) -> bytes:
    """JSON as sloppy clients write it: surrogates alone, numbers that are none."""
    return json.dumps(value).encode("utf-8")


@pytest.mark.parametrize("path", [*BODIES, "/v1/files"])
def test_no_bytes_end_in_a_500(server: Fuzzed, path: str) -> None:
    kinds = ["application/json", "text/plain", "multipart/form-data", "multipart/form-data; boundary=x", ""]

    @given(st.one_of(st.binary(max_size=200), st.sampled_from([b"[" * 50_000, b'{"a":' * 50_000, b"--x\r\n\r\n"])),
           st.sampled_from(kinds))  # fmt: skip
    @settings(FUZZ, max_examples=25)
    def send(content: bytes, kind: str) -> None:
        assert server.send("POST", path, content=content, headers={"content-type": kind}).status_code >= 400

    send()


@pytest.mark.parametrize("path", ["/v1/files", "/v1/batches", "/v1/models", "/metrics", "/ready"])
def test_no_query_ends_in_a_500(server: Fuzzed, path: str) -> None:
    @given(st.dictionaries(st.sampled_from(["limit", "after", "order", "purpose"]), TEXTS.filter(sendable), max_size=3))
    @settings(FUZZ, max_examples=25)
    def send(query: dict[str, str]) -> None:
        server.send("GET", path, params=query)

    send()


def sendable(text: str) -> bool:
    return len(text) < 6000 and not any("\ud800" <= each <= "\udfff" for each in text)


def test_requests_of_all_kinds_leave_nothing(server: Fuzzed) -> None:
    """After whatever came before, and as much again: no row, no open file, no scratch, hardly any memory more."""

    def send() -> None:
        for path, body in BODIES.items():
            for changes in ({}, {"stream": True}, {"n": 3, "temperature": 1}, {"max_tokens": -1}, {"messages": 1}):
                server.send("POST", path, content=as_json({**body, **changes}))
            server.send("POST", path, content=b"{")
        server.send("POST", "/v1/files", files={"file": ("in.jsonl", b"{}")}, data={"purpose": "batch"})
        for path in ("/v1/files", "/v1/batches", "/v1/models", "/metrics"):
            server.send("GET", path)

    def settled() -> tuple[int, int]:
        async def wait() -> None:
            while not idle(server.worker):
                await asyncio.sleep(0)

        asyncio.run(wait())
        gc.collect()
        process = psutil.Process()
        return process.num_fds(), process.memory_info().rss

    for _ in range(3):
        send()
    (files, memory) = settled()
    for _ in range(20):
        send()
    after = settled()
    assert after[0] <= files + 5
    assert after[1] - memory < 32 * 2**20
    assert not list(server.scratch.rglob("*.part"))
