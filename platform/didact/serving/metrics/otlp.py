"""Spans of OpenTelemetry's SDK as OTLP over HTTP, from the packages that Ray brings: API, SDK and protocol.

OpenTelemetry's own exporter is another package, which nothing here installs. Only imported where traces are sent.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from typing_extensions import override

from didact.logs import get_logger

_log = get_logger(__name__)


class OtlpExporter(SpanExporter):
    """Sends spans to an address; what cannot be sent is lost, and said once.

    Args:
        address: as in `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
        headers: of each message, which may hold a secret.
        timeout_seconds: for one message.
    """

    def __init__(self, address: str, headers: Mapping[str, str], timeout_seconds: float) -> None:
        self._address = address
        self._client = httpx.Client(
            timeout=timeout_seconds, headers={**headers, "content-type": "application/x-protobuf"}
        )
        self._said = threading.Event()

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            self._client.post(self._address, content=_message(spans).SerializeToString()).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if not self._said.is_set():
                self._said.set()
                _log.warning("traces cannot be sent, and are lost meanwhile: %s", type(error).__name__)
            return SpanExportResult.FAILURE
        self._said.clear()
        return SpanExportResult.SUCCESS

    @override
    def shutdown(self) -> None:
        self._client.close()

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def _message(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """All spans of one tracer, whose resource is the same."""
    resource = Resource(attributes=_attributes(spans[0].resource.attributes))
    scope = spans[0].instrumentation_scope
    told = InstrumentationScope(name=scope.name if scope else "", version=(scope.version if scope else None) or "")
    together = ScopeSpans(scope=told, spans=[_span(each) for each in spans])
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource, scope_spans=[together])])


def _span(span: ReadableSpan) -> Span:
    context = span.get_span_context()
    assert context is not None, "spans that have ended have one"
    return Span(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent.span_id.to_bytes(8, "big") if span.parent is not None else b"",
        trace_state=context.trace_state.to_header(),
        flags=int(context.trace_flags),
        name=span.name,
        kind=span.kind.value + 1,  # type: ignore[arg-type]  # the protocol counts from unspecified
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_attributes(span.attributes or {}),
        status=Status(code=span.status.status_code.value, message=span.status.description or ""),  # type: ignore[arg-type]
    )


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in values.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return AnyValue(array_value=ArrayValue(values=[_value(each) for each in value]))
    return AnyValue(string_value=str(value))
