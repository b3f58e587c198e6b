"""What is asked over HTTP, from bodies to answers, over any `Backend`."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from didact.errors import NotRegistered, RegistryError
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.api.access import record_of
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
    streamed,
)
from didact.serving.api.api_errors import ApiError, unknown_model
from didact.serving.api.chat_types import Body
from didact.serving.api.keys import Key, Keyring
from didact.serving.api.openai_answers import OpenAiEndpoint
from didact.serving.api.openai_types import AskingBody, ChatRequest, CompletionRequest, GenerationBody, ModelCard
from didact.serving.api.parameters import prompts_of, read_asking, read_body
from didact.serving.api.spelling import DetokenizeRequest, TokenizeRequest, tokenized, tokenizer_info
from didact.serving.engine.grammar.grammar import Grammar
from didact.serving.engine.protocol import ReplicaLost
from didact.serving.replica.adapter_store import FolderVersion, version_id
from didact.serving.replica.backend import Ask, Backend, BaseFacts, Event, Prompt, Refusal, Spelled, Spelling
from didact.serving.replica.catalog import Catalog, Meaning
from didact.serving.replica.loaded import LoadedAdapters
from didact.serving.replica.suspects import Suspects
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
    cors_origins: tuple[str, ...] = ()
    """Web pages of these origins may ask; `*` for all."""
    log_prompts: bool = False
    """Have the access log tell prompts as well."""
    adapter_roots: tuple[Path, ...] = ()
    """Folders below which administrators may load adapters from while the server runs; empty: nobody may."""
    loaded_record: Path | None = None
    """The file that says what they loaded."""
    behind_serve: bool = False
    """Ray Serve's proxy stands before the application, and adds `x-request-id` to what it answers."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A request on its way to the backend."""

    asks: list[Ask]
    endpoint: Endpoint
    tally: Tally
    fingerprint: str
    """The version that answers."""


class Gateway:
    """Turns bodies into asks and events into answers."""

    def __init__(self, backend: Backend, catalog: Catalog, settings: GatewaySettings) -> None:
        self.backend = backend
        self.catalog = catalog
        self.settings = settings
        self._suspects = Suspects()
        self._facts: BaseFacts | None = None
        self.loaded: LoadedAdapters | None = None
        if settings.adapter_roots and settings.loaded_record is not None:
            self.loaded = LoadedAdapters(settings.adapter_roots, settings.loaded_record)
        self.admission = Admission(Keyring(settings.keys_file, settings.api_keys))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await self.read(request, ChatRequest)
        return await self.answer(body, prompts_of(body), request, partial(self._openai, body, True))

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await self.read(request, CompletionRequest)
        return await self.answer(body, prompts_of(body), request, partial(self._openai, body, False))

    async def answer_body(self, path: str, content: bytes, key: Key | None = None) -> dict[str, Any]:
        """What a POST of `content` to `path` is answered with, for lines of batches, which have no connection.

        Args:
            path: one of `parameters.ANSWERED_PATHS`.
            content: the body, as JSON.
            key: whose limits count.

        Raises:
            ApiError: there is no answer.
        """
        body = read_asking(path, content)
        if body.stream:
            raise ApiError(400, "stream: found true; expected false in a batch.", code="invalid_value", param="stream")
        endpoint_of = partial(self._openai, body, isinstance(body, ChatRequest))
        begun = await self._begin(body, prompts_of(body), key, endpoint_of)
        try:
            return await self._whole(begun.asks, begun.endpoint, begun.tally)
        finally:
            self.admission.charge(key, begun.tally)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        body = await self.read(request, TokenizeRequest)
        if body.asked is None:
            raise ApiError(400, "Expected prompt or messages, one of them.", code="invalid_value", param="prompt")
        special = True if body.add_special_tokens is None else body.add_special_tokens
        field = "prompt" if body.messages is None else "messages"
        key = request.state.key
        spelled = await self.spelled(body.model, key, body.asked, field, special, body.add_generation_prompt)
        length = (await self._base()).context_length
        return JSONResponse(tokenized(spelled, length, bool(body.return_token_strs)))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        body = await self.read(request, DetokenizeRequest)
        spelled = await self.spelled(body.model, request.state.key, tuple(body.tokens), "tokens")
        return JSONResponse({"prompt": spelled.text})

    async def tokenizer_info(self) -> dict[str, Any]:
        """GET /tokenizer_info."""
        return tokenizer_info(await self.backend.tokenizer(), (await self._base()).context_length)

    async def spelled(
        self, model: str | None, key: Key | None, prompt: Prompt, field: str, special: bool = True, header: bool = True
    ) -> Spelled:
        """A prompt's tokens and their text; raises ApiError naming `field` for what cannot be spelled."""
        meaning = await self._meaning(model or self.catalog.base_name, key)
        found = await self.backend.spell(Spelling(prompt, meaning.adapter, special, header))
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
        registered = [await self._card(offer.version.name, offer.version, offer.aliases) for offer in offers]
        loaded = self.loaded.all() if self.loaded is not None else ()
        return [base, *registered, *[await self._card(each.name, each) for each in loaded]]

    async def card(self, name: str, request: Request) -> ModelCard:
        """One model, by any name that requests may use.

        Raises:
            ApiError: 404.
        """
        meaning = await self._meaning(name, request.state.key)
        if isinstance(meaning.folder, FolderVersion):
            return await self._card(name, meaning.folder)
        return await self._card(name, meaning.version, meaning.version.aliases if meaning.version else ())

    async def _card(
        self, name: str, version: ModelVersion | FolderVersion | None, aliases: Sequence[str] = ()
    ) -> ModelCard:
        base, length = self.catalog.base_name, (await self._base()).context_length
        if version is None:
            return ModelCard(id=name, root=await self._base_id(), max_model_len=length)
        return ModelCard(
            id=name,
            created=version.created if isinstance(version, FolderVersion) else version.created_ms // 1000,
            root=version_id(version),
            parent=base,
            max_model_len=length,
            aliases=list(aliases),
            problem=None if isinstance(version, FolderVersion) else self.catalog.problem(name, version),
        )

    async def read(self, request: Request, kind: type[_Body]) -> _Body:
        """A request's body; raises ApiError for what is none of this kind."""
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

    def _openai(self, body: GenerationBody, chat: bool, request_id: str, fingerprint: str) -> Endpoint:
        return OpenAiEndpoint(body, chat, request_id, fingerprint)

    async def answer(
        self,
        body: AskingBody,
        prompts: list[Prompt],
        request: Request,
        endpoint_of: Callable[[str, str], Endpoint],
    ) -> Response:
        """Ask the backend, and write what it answers.

        Args:
            body: what the client asks.
            prompts: each of which gets `num_choices` answers.
            request: what came over HTTP.
            endpoint_of: from the request's id and the version that answers to how answers are written.

        Raises:
            ApiError: there is no (whole) answer.
        """
        key: Key | None = request.state.key
        record = record_of(request)
        record.model, record.stream = body.model, bool(body.stream)
        record.prompts = prompts if self.settings.log_prompts else None
        begun = await self._begin(body, prompts, key, endpoint_of)
        endpoint, tally, headers = begun.endpoint, begun.tally, {"x-didact-model-version": begun.fingerprint}
        record.version, record.tally = begun.fingerprint, tally
        if not body.stream:
            try:
                return JSONResponse(await self._whole(begun.asks, endpoint, tally), headers=headers)
            finally:
                self.admission.charge(key, tally)
        first, rest = await self._opened(begun.asks, endpoint)
        events = streamed(endpoint, first, rest, tally, on_error=as_api_error)
        return StreamingResponse(
            self.admission.charged(events, key, tally),
            media_type="text/event-stream",
            headers={**headers, "cache-control": "no-cache"},
        )

    async def _begin(
        self, body: AskingBody, prompts: list[Prompt], key: Key | None, endpoint_of: Callable[[str, str], Endpoint]
    ) -> _Begun:
        """Everything before the backend is asked: what the name means, whether the key has anything left."""
        meaning = await self._meaning(body.model, key)
        _check_length(body, (await self._base()).context_length)
        priority = self.admission.priority(key, body.rank)
        self.admission.admit(key)
        request_id = uuid.uuid4().hex
        asks = [
            replace(self._ask(body, prompt, meaning, f"{request_id}-{index}-{choice}", choice), priority=priority)
            for index, prompt in enumerate(prompts)
            for choice in range(body.num_choices)
        ]
        fingerprint = await self._base_id() if meaning.adapter is None else version_id(meaning.adapter)
        return _Begun(asks, endpoint_of(request_id, fingerprint), Tally(body.num_choices), fingerprint)

    def _ask(self, body: AskingBody, prompt: Prompt, meaning: Meaning, request_id: str, choice: int) -> Ask:
        longest = self.settings.max_new_tokens if body.answer_length is None else body.answer_length
        if longest == 0 and not body.echoes:
            message = "max_tokens: found 0; expected at least 1 where the prompt is not told (echo)."
            raise ApiError(400, message, code="invalid_value", param="max_tokens")
        if body.least_length > longest:
            message = f"min_tokens: found {body.least_length}; expected at most max_tokens, which is {longest}."
            raise ApiError(400, message, code="invalid_value", param="min_tokens")
        grammar = body.grammar()
        if grammar is not None:
            _check_beside(body, grammar)
        return Ask(
            request_id=request_id,
            prompt=prompt,
            adapter=meaning.adapter,
            max_new_tokens=longest,
            timeout_seconds=self.settings.request_timeout_seconds,
            sampling=body.sampling(choice),
            stop=body.stop_texts,
            stop_token_ids=body.stop_ids,
            ignore_eos=body.ignores_end,
            min_tokens=body.least_length,
            logprobs=body.num_logprobs,
            echo=body.echoes,
            must_call=body.must_call,
            one_call=body.calls_once,
            grammar=grammar,
            num_beams=body.beams,
            length_penalty=body.beams_length_penalty,
            whole=not body.stream,
        )

    async def _whole(self, asks: list[Ask], endpoint: Endpoint, tally: Tally) -> dict[str, Any]:
        async def once() -> dict[str, Any]:
            tally.clear()
            async with contextlib.aclosing(merged(self._replies(asks), endpoint.prompt_field)) as events:
                answers = await collect(events, len(asks), tally)
            return endpoint.whole(answers, tally.usage)

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
        if self.loaded is not None and name != self.catalog.base_name and (adapter := self.loaded.find(name)):
            return Meaning(name, None, adapter)
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


def _check_length(body: AskingBody, context_length: int) -> None:
    """Raises ApiError for an answer longer than the model can ever give; a shorter one ends where the context does."""
    if body.answer_length is not None and body.answer_length > context_length:
        field = body.length_field
        message = (
            f"{field}: found {body.answer_length}; this model's maximum context length is {context_length} tokens."
        )
        raise ApiError(400, message, code="context_length_exceeded", param=field)


def _check_beside(body: AskingBody, grammar: Grammar) -> None:
    """Raises ApiError for what cannot be held beside a grammar."""
    beside = {"ignore_eos": body.ignores_end, "tool_choice": body.must_call is not None}
    for name in (name for name, there in beside.items() if there):
        message = f"{name}: found beside {grammar.field}, which says where the answer ends; leave one of them out."
        raise ApiError(400, message, code="invalid_value", param=name)


async def _twice(once: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run `once` again when its replica died before anything was sent to the client."""
    try:
        return await once()
    except ReplicaLost as error:
        _log.warning("asking another replica: %s", error)
        return await once()


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error; what nobody expected is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ReplicaLost):
        return ApiError(503, "The replica was lost; try again.", code="replica_lost", retry_after=1)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "The server failed to answer this request.", code="internal_error")
