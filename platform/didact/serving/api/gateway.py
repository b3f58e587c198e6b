"""The OpenAI API as a FastAPI application over any `Backend`: Ray Serve mounts it, tests call it in-process."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from importlib.metadata import version as didact_version
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from didact.errors import NotRegistered, RegistryError
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.api.admission import Admission
from didact.serving.api.answers import (
    Endpoint,
    Opened,
    Progress,
    Tally,
    collect,
    first_events,
    merged,
    refusal_error,
    sse,
)
from didact.serving.api.api_errors import ApiError, unknown_model
from didact.serving.api.keys import Key, Keyring
from didact.serving.api.openai_types import Body, ChatRequest, CompletionRequest, GenerationBody, ModelCard
from didact.serving.api.parameters import read_body
from didact.serving.api.request_ids import REQUEST_ID_HEADERS, RequestIds
from didact.serving.api.spelling import DetokenizeRequest, TokenizeRequest, tokenized, tokenizer_info
from didact.serving.engine.protocol import ReplicaLost
from didact.serving.replica.adapter_store import version_id
from didact.serving.replica.catalog import Catalog, Meaning
from didact.serving.replica.suspects import Suspects
from didact.serving.replica.worker import Ask, Backend, BaseFacts, Event, Prompt, Refusal, Spelled, Spelling
from didact.spec import ServeSpec

_log = get_logger(__name__)
_DEFAULTS = ServeSpec()
_MAX_BODY_BYTES = 1_000_000
_Body = TypeVar("_Body", bound=Body)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the API promises its clients."""

    max_new_tokens: int = _DEFAULTS.max_new_tokens
    """Longest answer when a request does not say, in tokens."""
    request_timeout_seconds: float = _DEFAULTS.request_timeout_seconds
    """Longest time from arrival to last token."""
    api_keys: tuple[str, ...] = ()
    """Accepted keys without limits."""
    keys_file: Path | None = None
    """Keys with names, models and rates; without any key at all the API is open."""
    body_seconds: float = 10.0
    """Longest time in which a body must have arrived."""
    behind_serve: bool = False
    """Ray Serve's proxy stands before the application, and adds `x-request-id` to what it answers."""


class Gateway:
    """Turns bodies into asks and events into answers."""

    def __init__(self, backend: Backend, catalog: Catalog, settings: GatewaySettings) -> None:
        self.backend = backend
        self.catalog = catalog
        self.settings = settings
        self._suspects = Suspects()
        self._facts: BaseFacts | None = None
        self.admission = Admission(Keyring(settings.keys_file, settings.api_keys))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self._read(request, ChatRequest)
        prompt = tuple(message.plain() for message in body.messages)
        return await self._answer(body, [prompt], request.state.key, chat=True)

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self._read(request, CompletionRequest)
        return await self._answer(body, list(body.prompts), request.state.key, chat=False)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        body = await self._read(request, TokenizeRequest)
        if body.asked is None:
            raise ApiError(400, "Expected prompt or messages, one of them.", code="invalid_value", param="prompt")
        special = True if body.add_special_tokens is None else body.add_special_tokens
        field = "prompt" if body.messages is None else "messages"
        key = request.state.key
        spelled = await self._spelled(body.model, key, body.asked, field, special, body.add_generation_prompt)
        length = (await self._base()).context_length
        return JSONResponse(tokenized(spelled, length, bool(body.return_token_strs)))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        body = await self._read(request, DetokenizeRequest)
        spelled = await self._spelled(body.model, request.state.key, tuple(body.tokens), "tokens")
        return JSONResponse({"prompt": spelled.text})

    async def tokenizer_info(self) -> dict[str, Any]:
        """GET /tokenizer_info."""
        return tokenizer_info(await self.backend.tokenizer(), (await self._base()).context_length)

    async def _spelled(
        self, model: str | None, key: Key | None, prompt: Prompt, field: str, special: bool = True, header: bool = True
    ) -> Spelled:
        meaning = await self._meaning(model or self.catalog.base_name, key)
        found = await self.backend.spell(Spelling(prompt, meaning.version, special, header))
        if isinstance(found, Refusal):
            raise refusal_error(found, field)
        return found

    async def cards(self, request: Request) -> list[ModelCard]:
        """The base, then every registered adapter, as far as the key may ask them."""
        key: Key | None = request.state.key
        return [card for card in await self._cards() if key is None or key.may_ask(card.id)]

    async def _cards(self) -> list[ModelCard]:
        base = await self._card(self.catalog.base_name, None)
        offers = [offer for offer in self.catalog.offers() if offer.version.name != base.id]
        return [base, *[await self._card(offer.version.name, offer.version, offer.aliases) for offer in offers]]

    async def card(self, name: str, request: Request) -> ModelCard:
        """One model, by any name that requests may use.

        Raises:
            ApiError: 404.
        """
        meaning = await self._meaning(name, request.state.key)
        return await self._card(name, meaning.version, meaning.version.aliases if meaning.version else ())

    async def _card(self, name: str, version: ModelVersion | None, aliases: Sequence[str] = ()) -> ModelCard:
        base, length = self.catalog.base_name, (await self._base()).context_length
        if version is None:
            return ModelCard(id=name, root=await self._base_id(), max_model_len=length)
        return ModelCard(
            id=name,
            created=version.created_ms // 1000,
            root=version_id(version),
            parent=base,
            max_model_len=length,
            aliases=list(aliases),
            problem=self.catalog.problem(name),
        )

    async def _read(self, request: Request, kind: type[_Body]) -> _Body:
        body, seconds = bytearray(), self.settings.body_seconds
        try:
            async with asyncio.timeout(seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > _MAX_BODY_BYTES:
                        raise ApiError(
                            413, f"The body is larger than {_MAX_BODY_BYTES} bytes.", code="request_too_large"
                        )
        except TimeoutError:
            message = f"The body had not arrived after {seconds:g} seconds; {len(body)} bytes had."
            raise ApiError(408, message, code="request_timeout") from None
        return read_body(bytes(body), kind)

    async def _answer(self, body: GenerationBody, prompts: list[Prompt], key: Key | None, chat: bool) -> Response:
        meaning = await self._meaning(body.model, key)
        self.admission.admit(key)
        request_id = uuid.uuid4().hex
        asks = [
            self._ask(body, prompt, meaning, f"{request_id}-{index}-{choice}", choice)
            for index, prompt in enumerate(prompts)
            for choice in range(body.num_choices)
        ]
        fingerprint = version_id(meaning.version) if meaning.version else await self._base_id()
        headers = {"x-didact-model-version": fingerprint}
        endpoint = Endpoint(chat, request_id, body.model, fingerprint)
        if not body.stream:
            tally = Tally(body.num_choices)
            try:
                return JSONResponse(await self._whole(asks, endpoint, tally), headers=headers)
            finally:
                self.admission.charge(key, tally)
        first, rest = await self._opened(asks, endpoint)
        tally = Tally(body.num_choices)
        events = sse(first, rest, endpoint, tally, body.include_usage, on_error=_as_api_error)
        return StreamingResponse(
            self.admission.charged(events, key, tally),
            media_type="text/event-stream",
            headers={**headers, "cache-control": "no-cache"},
        )

    def _ask(self, body: GenerationBody, prompt: Prompt, meaning: Meaning, request_id: str, choice: int) -> Ask:
        return Ask(
            request_id=request_id,
            prompt=prompt,
            adapter=meaning.version,
            max_new_tokens=body.answer_length or self.settings.max_new_tokens,
            timeout_seconds=self.settings.request_timeout_seconds,
            sampling=body.sampling(choice),
            stop=body.stop_texts,
            stop_token_ids=tuple(body.stop_token_ids or ()),
        )

    async def _whole(self, asks: list[Ask], endpoint: Endpoint, tally: Tally) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            tally.clear()
            async with contextlib.aclosing(merged(self._replies(asks), endpoint.prompt_field)) as events:
                texts, reasons = await collect(events, len(asks), tally)
            return endpoint.whole(texts, reasons, tally.usage)

        return await _twice(once)

    async def _opened(self, asks: list[Ask], endpoint: Endpoint) -> tuple[list[tuple[int, Progress]], Opened]:
        async def once() -> tuple[list[tuple[int, Progress]], Opened]:
            events = merged(self._replies(asks), endpoint.prompt_field)
            try:
                return await first_events(events, len(asks)), events
            except BaseException:
                await events.aclose()
                raise

        return await _twice(once)

    def _replies(self, asks: list[Ask]) -> list[AsyncGenerator[Event, None]]:
        return [self._suspects.watch(ask.mark, partial(self.backend.ask, ask)) for ask in asks]

    async def _meaning(self, name: str, key: Key | None) -> Meaning:
        if key is not None and not key.may_ask(name):
            raise unknown_model(name)
        try:
            found = self.catalog.meaning(name)
            if found is None:
                await asyncio.wrap_future(self.catalog.next_look(name))
                found = self.catalog.meaning(name)
            if found is None:
                raise unknown_model(name)
            return found
        except NotRegistered:
            raise unknown_model(name) from None
        except RegistryError as error:
            _log.warning("model %r could not be looked up: %s", name[:200], error)
            message = "The model registry cannot be reached, and this name was not used before; try again shortly."
            raise ApiError(503, message, code="registry_unavailable", param="model", retry_after=2) from None

    async def _base(self) -> BaseFacts:
        if self._facts is None:
            self._facts = await self.backend.facts()
        return self._facts

    async def _base_id(self) -> str:
        return f"{self.catalog.base_name}#{(await self._base()).fingerprint[:12]}"


def build_gateway(backend: Backend, catalog: Catalog, settings: GatewaySettings) -> FastAPI:
    """The application; its catalog is followed while it runs (from start-up to shut-down)."""
    gateway = Gateway(backend, catalog, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(catalog.start)
        yield
        await asyncio.to_thread(catalog.close)

    app = FastAPI(title="didact", lifespan=lifespan)
    if not settings.behind_serve:
        app.add_middleware(RequestIds)
    app.add_exception_handler(Exception, _error_response)
    app.add_exception_handler(ApiError, _error_response)
    app.add_exception_handler(HTTPException, _http_error_response)
    _add_api(app, gateway)
    _add_pages(app, gateway)
    return app


def _add_api(app: FastAPI, gateway: Gateway) -> None:
    keyed = [Depends(gateway.admission.authorise)]
    chat, completions = _documented(ChatRequest), _documented(CompletionRequest)
    app.post("/v1/chat/completions", dependencies=keyed, openapi_extra=chat)(gateway.chat)
    app.post("/v1/completions", dependencies=keyed, openapi_extra=completions)(gateway.completions)

    app.post("/tokenize", dependencies=keyed, openapi_extra=_documented(TokenizeRequest))(gateway.tokenize)
    app.post("/detokenize", dependencies=keyed, openapi_extra=_documented(DetokenizeRequest))(gateway.detokenize)
    app.get("/tokenizer_info", dependencies=keyed)(gateway.tokenizer_info)

    @app.get("/v1/models", dependencies=keyed)
    async def models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": await gateway.cards(request)}

    app.get("/v1/models/{name:path}", dependencies=keyed)(gateway.card)


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
    async def ready() -> JSONResponse:
        try:
            stats = await gateway.backend.stats()
        except Exception as error:  # noqa: BLE001 - whatever the reason, the answer is "not ready"
            _log.warning("not ready: %s", type(error).__name__)
            return JSONResponse({"status": "not ready"}, status_code=503)
        return JSONResponse({"status": "ready", **asdict(stats)})


async def _twice(once: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run `once` again when its replica died before anything was sent to the client."""
    try:
        return await once()
    except ReplicaLost as error:
        _log.warning("asking another replica: %s", error)
        return await once()


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ReplicaLost):
        return ApiError(503, "The replica was lost; try again.", code="replica_lost", retry_after=1)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "The server failed to answer this request.", code="internal_error")


async def _error_response(request: Request, error: Exception) -> Response:
    # What is not an ApiError is answered outside of all middleware.
    return _as_api_error(error).response(request.scope.get(REQUEST_ID_HEADERS))


async def _http_error_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return ApiError(error.status_code, str(error.detail), code=code).response()


def _documented(kind: type[Body]) -> dict[str, Any]:
    """The body's schema for /docs; the body is read by hand to limit its size and to shape its errors."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
