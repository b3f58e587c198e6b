"""Each request numbered, counted, and told in one line of JSON: who asked what, how long it took, how it ended.

No prompts. `x-request-id` stands once in every answer: the client's own where it sent one that can be echoed.

RequestRecord, filled while a request is answered -> AccessLog -> HttpMetrics, and a line of logger `didact.access`
"""

import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as AsgiMessage

from didact.datasets.conversation import Message
from didact.logs import get_logger
from didact.serving.api.answers import Tally
from didact.serving.metrics.requests import HttpMetrics

ACCESS_LOG = "didact.access"
_log = get_logger(ACCESS_LOG)
REQUEST_ID_HEADERS = "didact.request_id_headers"
"""Key of an ASGI scope: the headers to add to an answer that does not pass through `RequestIds`."""

_ID_HEADER = "x-request-id"
_CAN_BE_ECHOED = re.compile(r"[\x21-\x7e]{1,200}")
_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_QUIET = ("/health", "/ready", "/metrics")
"""Asked every few seconds by machines; a line is worth it only where they fail."""


@dataclass(slots=True)
class RequestRecord:
    """What is known of a request beside its head."""

    key: str | None = None
    """Name of the client's key."""
    model: str | None = None
    """As the client wrote it."""
    version: str | None = None
    """What answered."""
    stream: bool = False
    tally: Tally | None = None
    prompts: Sequence[Any] | None = None
    """Only where prompts are to be logged."""

    def fields(self) -> dict[str, Any]:
        """What there is to tell."""
        told: dict[str, Any] = {"key": self.key, "model": self.model and self.model[:200], "version": self.version}
        if self.tally is not None:
            usage = self.tally.usage
            told |= {"stream": self.stream, "prompt_tokens": usage.prompt_tokens}
            told |= {"completion_tokens": usage.completion_tokens}
        if self.prompts is not None:
            told["prompts"] = [_plain(prompt) for prompt in self.prompts]
        return {name: value for name, value in told.items() if value is not None}


def record_of(request: Request) -> RequestRecord:
    """The record of a request, to be filled."""
    record = getattr(request.state, "record", None)
    if record is None:
        record = request.state.record = RequestRecord()
    return record


class AccessLog:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status, ended = time.monotonic(), 499, False  # nginx's number for a client that left

        async def watched(message: AsgiMessage) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body", False))

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500
            ended = True
            raise
        finally:
            self._tell(scope, status, ended, time.monotonic() - started)
        return None

    def _tell(self, scope: Scope, status: int, ended: bool, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        handler = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.count(handler, method, status, seconds)
        if handler in _QUIET and status < 400:
            return
        record = scope.get("state", {}).get("record")
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "method": method,
            "path": scope["path"][:200],
            "status": status,
            "seconds": round(seconds, 4),
            "request_id": request_id(scope),
            **({} if ended else {"client_left": True}),
            **(record.fields() if record else {}),
        }
        _log.info("%s", json.dumps(line, ensure_ascii=True))


def _plain(prompt: Any) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [asdict(part) if isinstance(part, Message) else part for part in prompt]


def request_id(scope: Scope) -> str | None:
    """The id of a request that is being answered."""
    made = scope.get(REQUEST_ID_HEADERS, {}).get(_ID_HEADER)
    given = Headers(scope=scope).get(_ID_HEADER, "")  # a proxy before this application has put it there
    return made or (given if _CAN_BE_ECHOED.fullmatch(given) else None)


class RequestIds:
    """ASGI middleware, for where no proxy before the application does the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(_ID_HEADER, "")
        number = given if _CAN_BE_ECHOED.fullmatch(given) else uuid.uuid4().hex
        scope[REQUEST_ID_HEADERS] = {_ID_HEADER: number}

        async def numbered(message: AsgiMessage) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_ID_HEADER] = number
            await send(message)

        return await self._app(scope, receive, numbered)
