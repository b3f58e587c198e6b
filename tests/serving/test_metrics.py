"""Figures of answers: counted with right values, summed over replicas, shown to those who may see them."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from didact.serving.api.keys import KeyFile
from didact.serving.engine.protocol import Delta, EngineStats
from didact.serving.metrics.answers import AnswerMetrics
from didact.serving.metrics.labels import CappedLabels
from didact.serving.metrics.requests import HttpMetrics
from didact.serving.metrics.snapshots import MetricsSum, Snapshot
from didact.serving.replica.worker import Worker
from tests.conftest import ROOT
from tests.serving.test_gateway import HELLO

IDLE = EngineStats(0, 0, ("demo:3#1f0c5a9be2d4",), 30, 12, 2, 1, 10, max_running=4, max_adapters=8, cache_usage=0.5)
Series = dict[tuple[str, frozenset], float]


def series(text: str) -> Series:
    """All samples of an exposition, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Series, name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    return sum(number for (each, has), number in found.items() if each == name and has >= frozenset(labels.items()))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def counted() -> tuple[AnswerMetrics, Clock]:
    """One answer of three tokens after two seconds in the queue, one left by its client, one still waiting."""
    clock = Clock()
    metrics = AnswerMetrics("tiny", clock)
    meter = metrics.begin("demo", "3", ("demo", "demo:3", "demo@champion"))
    meter.queued(7)
    for seconds, delta in [
        (5, Delta("a", (1,), queued_seconds=2.0)),
        (0.25, Delta("b", (2,))),
        (0.75, Delta("c", (3,), "stop")),
    ]:
        clock.now += seconds
        meter.piece(delta)
    meter.end("abort")  # it has ended already
    left = metrics.begin(None, "", ())
    left.queued(4)
    left.end("abort")
    metrics.begin(None, "", ()).end("error")  # was never queued
    metrics.begin("demo", "3", ("demo", "demo:3", "demo@champion")).queued(1)
    return metrics, clock


def told(*snapshots: Snapshot) -> Series:
    return series(MetricsSum().text(snapshots).decode())


def test_an_answer_is_counted_and_timed() -> None:
    metrics, _ = counted()
    found = told(metrics.snapshot("one", IDLE, 64))
    demo = {"model_name": "demo", "version": "3", "engine": "0"}
    assert value(found, "vllm:prompt_tokens_total", **demo) == 8
    assert value(found, "vllm:generation_tokens_total", **demo) == 3
    assert value(found, "vllm:request_success_total", **demo, finished_reason="stop") == 1
    assert value(found, "vllm:request_success_total", model_name="tiny", finished_reason="abort") == 1
    assert value(found, "vllm:request_success_total") == 2
    sums = {
        "time_to_first_token_seconds": 5,
        "request_queue_time_seconds": 2,
        "request_prefill_time_seconds": 3,
        "request_decode_time_seconds": 1,
        "request_inference_time_seconds": 4,
        "e2e_request_latency_seconds": 6,
        "request_time_per_output_token_seconds": 0.5,
        "inter_token_latency_seconds": 1,
        "request_generation_tokens": 3,
    }
    assert {name: value(found, f"vllm:{name}_sum", **demo) for name in sums} == sums
    assert value(found, "vllm:inter_token_latency_seconds_bucket", **demo, le="0.3") == 1
    assert not [name for name, _ in found if name.endswith("_created")]


def test_engines_and_adapters_are_told() -> None:
    metrics, _ = counted()
    found = told(metrics.snapshot("one", IDLE, 64))
    assert value(found, "vllm:kv_cache_usage_perc", model_name="tiny") == 0.5
    assert value(found, "vllm:cache_config_info", block_size="16", num_gpu_blocks="16") == 1
    assert value(found, "vllm:prefix_cache_queries_total") == 40
    assert value(found, "vllm:prefix_cache_hits_total") == 10
    assert value(found, "vllm:lora_adapter_loaded", adapter_name="demo:3") == 1
    assert value(found, "vllm:num_gpu_loaded_lora_adapters") == 1
    assert value(found, "vllm:max_gpu_lora_adapters") == 8
    ((labels, at),) = [(dict(has), at) for (name, has), at in found.items() if name == "vllm:lora_requests_info"]
    assert (labels["max_lora"], labels["running_lora_adapters"]) == ("8", "")
    assert labels["waiting_lora_adapters"] == "demo,demo:3,demo@champion"
    assert at > 1.7e9


def test_replicas_are_summed_and_counts_of_those_that_are_gone_stay() -> None:
    (first, _), (second, _) = counted(), counted()
    figures = MetricsSum()
    both = [first.snapshot("one", IDLE, 64), second.snapshot("two", IDLE, 64)]
    before = series(figures.text(both).decode())
    after = series(figures.text(both[:1]).decode())
    again = series(figures.text(both[:1]).decode())
    assert value(before, "vllm:generation_tokens_total") == value(after, "vllm:generation_tokens_total") == 6
    assert value(again, "vllm:time_to_first_token_seconds_count") == 2
    assert (value(before, "vllm:max_gpu_lora_adapters"), value(before, "vllm:kv_cache_usage_perc")) == (8, 0.5)
    loaded = [value(each, "vllm:num_gpu_loaded_lora_adapters") for each in (before, after)]
    assert loaded == [2, 1]
    assert len([name for name, _ in before if name == "vllm:lora_requests_info"]) == 1


def test_labels_are_capped() -> None:
    labels = CappedLabels(2)
    assert [labels.of(name, "1") for name in ("a", "b", "c", "a")] == [
        ("a", "1"),
        ("b", "1"),
        ("other", "other"),
        ("a", "1"),
    ]


def test_a_running_application_tells_its_figures(client: TestClient) -> None:
    for model in ("tiny", "demo", "demo:2", "nobody"):
        client.post("/v1/chat/completions", json={**HELLO, "model": model, "max_tokens": 4})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = series(answer.text)
    assert value(found, "vllm:request_success_total", model_name="demo", version="1") == 1
    assert value(found, "vllm:request_success_total", model_name="demo", version="2") == 1
    assert value(found, "vllm:request_success_total", model_name="tiny", version="") == 1
    chat = {"handler": "/v1/chat/completions", "method": "POST"}
    assert value(found, "http_requests_total", **chat, status="2xx") == 3
    assert value(found, "http_requests_total", **chat, status="4xx") == 1
    assert value(found, "vllm:num_requests_running") == value(found, "vllm:num_requests_waiting") == 0


def test_every_query_of_the_dashboard_finds_its_series(client: TestClient) -> None:
    for model in ("tiny", "demo"):
        client.post("/v1/chat/completions", json={**HELLO, "model": model, "max_tokens": 4})
    found = series(client.get("/metrics").text)
    labels_of: dict[str, set[str]] = {}
    for name, has in found:
        labels_of.setdefault(name, set()).update(label for label, _ in has)
    dashboard = json.loads((ROOT / "serve" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [each["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert len(queries) >= 20
    for query in queries:
        names = re.findall(r"\b(?:vllm|didact):\w+|\bhttp_\w+", query)
        assert names, query
        assert set(names) <= set(labels_of), query
        asked = re.findall(r"(\w+)=~?\"", query) + [
            label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")
        ]
        for name in names:
            assert set(asked) <= labels_of[name], query


def test_strangers_learn_nothing_about_models(
    worker: Worker, serve_worker: Callable[..., TestClient], tmp_path: Path
) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    plain, reader = keys.add("ann"), keys.add("prometheus", roles=["metrics"])
    with serve_worker(worker, keys_file=keys.path) as client:

        def asked(path: str, key: str | None) -> tuple[int, str]:
            answer = client.get(path, headers={"authorization": f"Bearer {key}"} if key else {})
            return answer.status_code, answer.text

        assert [asked("/metrics", key)[0] for key in (None, plain, reader)] == [401, 403, 200]
        assert asked("/health", None) == (200, '{"status":"ok"}')
        assert asked("/ready", None) == asked("/ready", plain) == (200, '{"status":"ready"}')
        assert "adapters" in asked("/ready", reader)[1]


@pytest.mark.parametrize("log_prompts", [False, True])
def test_the_access_log_tells_who_asked_what_and_no_prompt(
    worker: Worker, serve_worker: Callable[..., TestClient], caplog: pytest.LogCaptureFixture, log_prompts: bool
) -> None:
    with (
        serve_worker(worker, log_prompts=log_prompts) as client,
        caplog.at_level(logging.INFO, logger="didact.access"),
    ):
        logging.getLogger("didact.access").addHandler(caplog.handler)
        client.post("/v1/chat/completions", json={**HELLO, "max_tokens": 2}, headers={"x-request-id": "abc"})
        client.post("/v1/chat/completions", json={**HELLO, "stream": True, "max_tokens": 2})
        client.get("/v1/models/nobody")
        client.get("/health")
        logging.getLogger("didact.access").removeHandler(caplog.handler)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "didact.access"]
    lines = list({line["request_id"]: line for line in lines}.values())
    first, streamed, missing = lines
    assert (first["status"], first["model"], first["version"]) == (200, "tiny", "tiny#bbbbbbbbbbbb")
    assert (first["request_id"], first["method"], first["path"]) == ("abc", "POST", "/v1/chat/completions")
    assert (first["completion_tokens"], streamed["completion_tokens"], streamed["stream"]) == (2, 2, True)
    assert (missing["status"], missing["path"]) == (404, "/v1/models/nobody")
    assert ("hello" in str(lines)) == log_prompts


def test_pages_of_other_origins_ask_only_where_that_is_allowed(
    worker: Worker, serve_worker: Callable[..., TestClient]
) -> None:
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    for origins, allowed in [((), None), (("https://chat.example",), "https://chat.example"), (("*",), "*")]:
        with serve_worker(worker, cors_origins=origins) as client:
            answer = client.options("/v1/chat/completions", headers=asked)
            assert answer.headers.get("access-control-allow-origin") == allowed


def test_routes_are_counted_by_their_pattern() -> None:
    requests = HttpMetrics()
    requests.count("/v1/models/{name:path}", "GET", 404, 0.02)
    found = told(requests.snapshot())
    assert value(found, "http_requests_total", handler="/v1/models/{name:path}", status="4xx") == 1
    assert value(found, "http_request_duration_seconds_bucket", le="0.025") == 1
