"""`x-request-id`: once in every answer, the client's own where it sent one that can be echoed."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID_HEADERS = "didact.request_id_headers"
"""Key of an ASGI scope: the headers to add to an answer that does not pass through `RequestIds`."""

_NAME = "x-request-id"
_CAN_BE_ECHOED = re.compile(r"[\x21-\x7e]{1,200}")


def request_id(scope: Scope) -> str | None:
    """The id of a request that is being answered."""
    made = scope.get(REQUEST_ID_HEADERS, {}).get(_NAME)
    given = Headers(scope=scope).get(_NAME, "")  # a proxy before this application has put it there
    return made or (given if _CAN_BE_ECHOED.fullmatch(given) else None)


class RequestIds:
    """ASGI middleware, for where no proxy before the application does the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(_NAME, "")
        number = given if _CAN_BE_ECHOED.fullmatch(given) else uuid.uuid4().hex
        scope[REQUEST_ID_HEADERS] = {_NAME: number}

        async def numbered(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[_NAME] = number
            await send(message)

        return await self._app(scope, receive, numbered)
