"""A span a request for OpenTelemetry, where the standard variables name an address for traces.

traceparent of a request -> Traced -> a span with what the access log knows -> OTLP over HTTP

Names of attributes are those of OpenTelemetry's conventions for HTTP servers and generative models. No prompt, answer
or key is in a span. OpenTelemetry is loaded only where there is an address.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from didact import env
from didact.errors import SpecError
from didact.serving.api.access import RequestRecord, request_id
from didact.serving.api.application import Extension
from didact.serving.api.gateway import Gateway

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_QUIET = ("/health", "/ready", "/metrics")
_OPERATIONS = {"/v1/chat/completions": "chat", "/v1/messages": "chat", "/v1/completions": "text_completion"}
_PROTOCOL = "http/protobuf"


class Tracing(Extension):
    """Traces of a gateway's requests.

    Args:
        address: where they go.

    Raises:
        SpecError: `OTEL_EXPORTER_OTLP_PROTOCOL` is one that is not spoken here.
    """

    def __init__(self, address: str) -> None:
        check_protocol()
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from didact.serving.metrics.otlp import OtlpExporter

        exporter = OtlpExporter(address, env.traces_headers(), env.traces_timeout())
        named = Resource({"service.name": "didact"}).merge(Resource.create())
        if str(named.attributes["service.name"]).startswith("unknown_service"):
            named = named.merge(Resource({"service.name": "didact"}))
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))

    @override
    def add_to(self, app: FastAPI, gateway: Gateway) -> None:
        app.add_middleware(Traced, provider=self._provider)

    @override
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._provider.shutdown()


def check_protocol() -> None:
    """Nothing, where traces are to be sent as they can be.

    Raises:
        SpecError: names the variable's value.
    """
    if env.traces_endpoint() is not None and (found := env.traces_protocol()) != _PROTOCOL:
        raise SpecError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: found {found!r}; expected {_PROTOCOL} (port 4318 of a collector)"
        )


class Traced:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._app = app
        self._tracer = provider.get_tracer("didact.serving")
        self._kind, self._parents = SpanKind.SERVER, TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in _QUIET:
            return await self._app(scope, receive, send)
        context = self._parents.extract(dict(Headers(scope=scope)))
        started, status = time.monotonic(), 499  # nginx's number for a client that left
        span = self._tracer.start_span(scope["method"], context, self._kind)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            _tell(span, scope, status, started)
            span.end()
        return None


def _tell(span: "Span", scope: Scope, status: int, started: float) -> None:
    from opentelemetry.trace import StatusCode

    route = getattr(scope.get("route"), "path", None)
    span.update_name(f"{scope['method']} {route}" if route else scope["method"])
    told: dict[str, Any] = {
        "http.request.method": scope["method"],
        "http.route": route,
        "url.path": scope["path"][:200],
        "http.response.status_code": status,
        "didact.request_id": request_id(scope),
    }
    record = scope.get("state", {}).get("record")
    if isinstance(record, RequestRecord):
        told |= _of_answer(record, started)
        told["gen_ai.operation.name"] = _OPERATIONS.get(route or "") if record.tally is not None else None
    span.set_attributes({name: value for name, value in told.items() if value is not None})
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _of_answer(record: RequestRecord, started: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "gen_ai.request.model": record.model and record.model[:200],
        "gen_ai.response.model": record.version,
    }
    if (tally := record.tally) is not None:
        told |= {
            "gen_ai.provider.name": "didact",
            "gen_ai.request.stream": record.stream,
            "gen_ai.usage.input_tokens": tally.usage.prompt_tokens,
            "gen_ai.usage.output_tokens": tally.usage.completion_tokens,
            "gen_ai.response.time_to_first_chunk": None if tally.first_at is None else tally.first_at - started,
            "gen_ai.latency.time_in_queue": tally.queued_seconds,
        }
    return told
