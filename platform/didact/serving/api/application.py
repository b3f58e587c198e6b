"""The HTTP application: what is asked where, and how errors are told.

Backend, Catalog, GatewaySettings -> build_gateway -> FastAPI, which Ray Serve mounts and tests call in-process
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib import resources
from importlib.metadata import version as didact_version
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from typing_extensions import override

from didact.logs import get_logger
from didact.serving.api.access import REQUEST_ID_HEADERS, AccessLog, RequestIds
from didact.serving.api.adapters import LoadRequest, UnloadRequest, load_adapter, unload_adapter
from didact.serving.api.api_errors import ApiError
from didact.serving.api.chat_types import Body
from didact.serving.api.gateway import Gateway, GatewaySettings, as_api_error
from didact.serving.api.messages import CountRequest, MessagesRequest, count_tokens, in_anthropics_form, messages
from didact.serving.api.openai_types import ChatRequest, CompletionRequest
from didact.serving.api.spelling import DetokenizeRequest, TokenizeRequest
from didact.serving.metrics.requests import HttpMetrics
from didact.serving.metrics.snapshots import MetricsSum, Snapshot
from didact.serving.replica.backend import Backend
from didact.serving.replica.catalog import Catalog

_log = get_logger(__name__)
Gateways = Callable[[], Awaitable[Sequence[Snapshot]]]
Answered = Callable[[Gateway, Request], Awaitable[Response]]


class Extension(Protocol):
    """More routes on a gateway, and what runs beside them."""

    def add_to(self, app: FastAPI, gateway: Gateway) -> None:
        """Add the routes."""
        ...

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Runs while the application does."""
        ...


def build_gateway(
    backend: Backend,
    catalog: Catalog,
    settings: GatewaySettings,
    *,
    requests: HttpMetrics | None = None,
    gateways: Gateways | None = None,
    extensions: Sequence[Extension] = (),
) -> FastAPI:
    """The application; its catalog is followed while it runs (from start-up to shut-down).

    Args:
        backend: who answers.
        catalog: what names mean.
        settings: what clients are promised.
        requests: counts this gateway's requests.
        gateways: gives what all gateways have counted, where there are several.
        extensions: more routes.
    """
    gateway = Gateway(backend, catalog, settings)
    requests = requests or HttpMetrics()

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(catalog.start)
        async with contextlib.AsyncExitStack() as running:
            for each in extensions:
                await running.enter_async_context(each.running())
            yield
        await asyncio.to_thread(catalog.close)

    app = _Documented(title="didact", lifespan=lifespan)
    app.add_middleware(AccessLog, metrics=requests)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "x-didact-model-version", "retry-after"],
        )
    if not settings.behind_serve:
        app.add_middleware(RequestIds)
    app.add_exception_handler(Exception, _error_response)
    app.add_exception_handler(ApiError, _error_response)
    app.add_exception_handler(HTTPException, _http_error_response)
    _add_api(app, gateway)
    for each in extensions:
        each.add_to(app, gateway)
    _add_pages(app, gateway)
    _add_metrics(app, gateway, requests, gateways)
    return app


def _add_api(app: FastAPI, gateway: Gateway) -> None:
    keyed = [Depends(gateway.admission.authorise)]
    chat, completions = documented(ChatRequest), documented(CompletionRequest)
    app.post("/v1/chat/completions", dependencies=keyed, openapi_extra=chat)(gateway.chat)
    app.post("/v1/completions", dependencies=keyed, openapi_extra=completions)(gateway.completions)

    anthropic: dict[str, tuple[Answered, type[Body]]] = {
        "/v1/messages": (messages, MessagesRequest),
        "/v1/messages/count_tokens": (count_tokens, CountRequest),
    }
    for path, (answered, kind) in anthropic.items():
        app.post(path, dependencies=keyed, openapi_extra=documented(kind))(_on(gateway, answered))
    if gateway.loaded is not None:
        admin = [Depends(gateway.admission.authorise_admin)]
        changing: dict[str, tuple[Answered, type[Body]]] = {
            "/v1/load_lora_adapter": (load_adapter, LoadRequest),
            "/v1/unload_lora_adapter": (unload_adapter, UnloadRequest),
        }
        for path, (answered, kind) in changing.items():
            app.post(path, dependencies=admin, openapi_extra=documented(kind))(_on(gateway, answered))
    app.post("/tokenize", dependencies=keyed, openapi_extra=documented(TokenizeRequest))(gateway.tokenize)
    app.post("/detokenize", dependencies=keyed, openapi_extra=documented(DetokenizeRequest))(gateway.detokenize)
    app.get("/tokenizer_info", dependencies=keyed)(gateway.tokenizer_info)

    @app.get("/v1/models", dependencies=keyed)
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": await gateway.cards(request)}

    app.get("/v1/models/{name:path}", dependencies=keyed)(gateway.card)


def _on(gateway: Gateway, answered: "Answered") -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:  # FastAPI reads what it is given from the signature
        return await answered(gateway, request)

    return answer


def _add_pages(app: FastAPI, gateway: Gateway) -> None:
    page = resources.files("didact.serving.api").joinpath("chat.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def chat_page() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"version": didact_version("didact")}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(request: Request) -> JSONResponse:
        try:
            stats = await gateway.backend.stats()
        except Exception as error:  # noqa: BLE001 - whatever the reason, the answer is "not ready"
            _log.warning("not ready: %s", type(error).__name__)
            return JSONResponse({"status": "not ready"}, status_code=503)
        told = asdict(stats) if gateway.admission.may_read_figures(request) else {}
        return JSONResponse({"status": "ready", **told})


def _add_metrics(app: FastAPI, gateway: Gateway, requests: HttpMetrics, gateways: Gateways | None) -> None:
    figures = MetricsSum()

    @app.get("/metrics", dependencies=[Depends(gateway.admission.authorise_figures)])
    async def metrics() -> Response:
        own = [requests.snapshot()]
        if gateways is not None:
            others = [each for each in await gateways() if each.source != own[0].source]
            own = [*own, *others]
        snapshots = [*await gateway.backend.metrics(), *own]
        text = await asyncio.to_thread(figures.text, snapshots)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _error_response(request: Request, error: Exception) -> Response:
    # What is not an ApiError is answered outside of all middleware.
    told = as_api_error(error)
    body = in_anthropics_form(told) if request.url.path.startswith("/v1/messages") else told.body
    return told.response(request.scope.get(REQUEST_ID_HEADERS), body)


async def _http_error_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    words = str(error.detail)
    if error.status_code == 404:
        near = "; OpenAI's other call is POST /v1/chat/completions" if "responses" in request.url.path else ""
        words = f"Not Found: this server has no such path{near}. GET /openapi.json lists those it has."
    return ApiError(error.status_code, words, code=code).response()


class _Documented(FastAPI):
    """Puts the parts of bodies where a document's references look for them."""

    @override
    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for operation in (each for path in document["paths"].values() for each in path.values()):
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(content["schema"].pop("$defs", {}))
        return document


def documented(kind: type[Body]) -> dict[str, Any]:
    """The body's schema for /docs; the body is read by hand to limit its size and to shape its errors."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
