"""One POST over HTTP: its time, its size, and the key that no message may hold."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from didact import env
from didact.addresses import AddressRefused, check_host
from didact.errors import EndpointRefused
from didact.evaluation.endpoint.bodies import Request, as_bytes
from didact.spec import EndpointSpec

_MOST_BYTES = 32_000_000
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class Response:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


class Lost(Exception):
    """No whole response; `unsent` where the request did not get there."""

    def __init__(self, what: str, unsent: bool = False) -> None:
        super().__init__(what)
        self.unsent = unsent


class Connection:
    """The HTTP side of an endpoint. Redirects are not followed, since they would take the key elsewhere."""

    def __init__(self, spec: EndpointSpec) -> None:
        self._spec = spec
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._key()  # before anything is asked of anybody

    async def post(self, request: Request, seconds_left: float) -> Response:
        """Send a request and read the whole response.

        Raises:
            Lost: it did not arrive in time or in one piece.
            EndpointRefused: the key has gone, or the address is one of a metadata service.
        """
        key = self._key()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        seconds = min(self._spec.timeout_seconds, seconds_left)
        got = 0
        try:
            async with asyncio.timeout(seconds):
                await self._check_address()
                sending = self._open().stream(
                    "POST", self._spec.url + request.route, content=as_bytes(request.body), headers=headers
                )
                async with sending as response:
                    content = bytearray()
                    async for piece in response.aiter_bytes():
                        content += piece
                        got = len(content)
                        if got > _MOST_BYTES:
                            raise Lost(f"an answer of more than {_MOST_BYTES:,} bytes")
                    return Response(response.status_code, response.headers, bytes(content))
        except TimeoutError:
            raise Lost(f"no whole answer within {seconds:g} s ({got} bytes had come)") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            what = "it cannot be reached" if isinstance(error, _NOT_SENT) else "the connection broke"
            raise Lost(
                f"{what} ({type(error).__name__}: {self.without_key(str(error))})", isinstance(error, _NOT_SENT)
            ) from None

    async def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @property
    def about_key(self) -> str:
        """What to look at when a key was not accepted."""
        name = self._spec.key_env
        return f"it does not accept the key in {name}" if name else "it wants a key; name its variable in key_env"

    def without_key(self, text: str) -> str:
        """A text from outside, in which no part repeats the key."""
        key = self._key()
        return text.replace(key, "[key]") if key else text

    def _key(self) -> str | None:
        name = self._spec.key_env
        if name is None:
            return None
        key = (env.endpoint_key(name) or "").strip()
        if not key:
            raise EndpointRefused(f"key_env: the environment has no {name}; set it to the key of {self._spec.url}")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise EndpointRefused(f"key_env: {name} holds characters that no key has; set it to the key alone")
        return key

    async def _check_address(self) -> None:
        """Before the first request of a client: it must not lead to what hands out this machine's keys."""
        if self._client is not None and self._loop is asyncio.get_running_loop():
            return
        try:
            await asyncio.to_thread(check_host, urlsplit(self._spec.url).hostname or "")
        except AddressRefused as error:
            raise EndpointRefused(f"url: found {self._spec.url}; {error}") from None

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            # Proxies of the environment are for the world outside.
            direct = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
            limits = httpx.Limits(max_connections=self._spec.at_once, max_keepalive_connections=self._spec.at_once)
            self._client = httpx.AsyncClient(timeout=None, limits=limits, mounts=direct, follow_redirects=False)
            self._loop = loop
        return self._client
