"""Traces of requests, as a collector receives them."""

import ast
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from didact import env
from didact.errors import SpecError
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from didact.serving.tracing import Tracing, check_protocol
from tests.conftest import ROOT
from tests.fakes.registry import ShelfRegistry

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collector(ThreadingHTTPServer):
    received: list[tuple[str, dict[str, str], bytes]]


@pytest.fixture()
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.server.received.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = Collector(("127.0.0.1", 0), Handler)
    server.received = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def spans(collector: Collector) -> dict[str, tuple[Span, dict[str, Any]]]:
    found = {}
    for _, _, body in collector.received:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"]
            assert service == "demo-server"
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                values = {
                    each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes
                }
                found[values["didact.request_id"]] = (span, values)
    return found


def test_a_request_is_a_span_with_its_parent_and_without_its_words(
    collector: Collector, worker: Worker, registry: ShelfRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary-7, x-tenant=a")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "demo-server")
    address = env.traces_endpoint()
    assert address is not None
    catalog = Catalog("tiny", registry, worker.prepare)
    app = build_gateway(worker, catalog, GatewaySettings(), extensions=[Tracing(address)])
    body = {"model": "demo", "prompt": "secret words", "max_tokens": 5, "ignore_eos": True}
    with TestClient(app, raise_server_exceptions=False) as client:
        for name, changes in {"whole": {}, "stream": {"stream": True}, "wrong": {"model": "nobody"}}.items():
            headers = {"x-request-id": name, **({"traceparent": PARENT} if name == "whole" else {})}
            client.post("/v1/completions", json={**body, **changes}, headers=headers)
        client.get("/health", headers={"x-request-id": "quiet"})
    path, headers, content = collector.received[0]
    assert path == "/v1/traces" and headers["authorization"] == "Bearer canary-7" and headers["x-tenant"] == "a"
    assert b"secret" not in content and b"canary" not in content
    found = spans(collector)
    assert found.keys() == {"whole", "stream", "wrong"}
    for name in ("whole", "stream"):
        span, values = found[name]
        assert (span.name, span.kind) == ("POST /v1/completions", Span.SPAN_KIND_SERVER)
        assert values["gen_ai.request.model"] == "demo" and values["gen_ai.response.model"].startswith("demo:1#")
        assert (values["gen_ai.usage.input_tokens"], values["gen_ai.usage.output_tokens"]) == (12, 5)
        assert values["http.response.status_code"] == 200 and values["gen_ai.operation.name"] == "text_completion"
        seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
        assert 0 <= values["gen_ai.latency.time_in_queue"] <= values["gen_ai.response.time_to_first_chunk"] <= seconds
    whole, stream = found["whole"][0], found["stream"][0]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == tuple(PARENT.split("-")[1:3])
    assert stream.parent_span_id == b"" and stream.trace_id != whole.trace_id
    assert found["wrong"][1]["http.response.status_code"] == 404


def test_a_collector_that_is_down_costs_no_request(
    worker: Worker, registry: ShelfRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    catalog = Catalog("tiny", registry, worker.prepare)
    extensions = [Tracing("http://127.0.0.1:9/v1/traces")]
    with TestClient(build_gateway(worker, catalog, GatewaySettings(), extensions=extensions)) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, None),
        ({"ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318", "TRACES_ENDPOINT": "http://t/own"}, "http://t/own"),
    ],
)
def test_standard_variables_say_where_traces_go(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], address: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    assert env.traces_endpoint() == address
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if address is not None:
        with pytest.raises(SpecError, match="found 'grpc'; expected http/protobuf"):
            check_protocol()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert env.traces_endpoint() is None
    check_protocol()


def test_opentelemetry_is_loaded_by_one_file_which_is_loaded_where_traces_are_sent() -> None:
    source = ROOT / "platform" / "didact"
    loading = {
        str(file.relative_to(source))
        for file in (source / "serving").rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith(("opentelemetry", "didact.serving.metrics.otlp"))
    }
    assert loading == {"serving/metrics/otlp.py"}
