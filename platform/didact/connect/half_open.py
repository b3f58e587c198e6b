"""Connections on which no whole request head arrives are closed: uvicorn, which Ray Serve's proxy runs on, would wait.

Serve has no option for it. Its proxies call a function at their start, which the environment of their Ray names.
"""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CALLED_BY_PROXIES = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "didact.connect.half_open:close_half_open")
"""The variable, and its value, that must be set where Ray is started."""

_SECONDS = 10.0
_WATCHED = "watched_by_didact"


def close_half_open(seconds: float = _SECONDS) -> list[Any]:
    """Have the connections of this process closed when no request's head arrives whole.

    Args:
        seconds: from the connection's beginning, or from the first byte of a later head.

    Returns:
        no middleware, which Serve asks for.
    """
    for protocol in (H11Protocol, HttpToolsProtocol):
        if not hasattr(protocol, _WATCHED):
            _watch(protocol, seconds)
    return []


def _watch(protocol: Any, seconds: float) -> None:
    made, received = protocol.connection_made, protocol.data_received

    def expect_head(connection: Any) -> None:
        connection.head_timer = connection.loop.call_later(seconds, _close_unless_busy, connection)

    def connection_made(connection: Any, transport: Any) -> None:
        made(connection, transport)
        expect_head(connection)

    def data_received(connection: Any, data: bytes) -> None:
        received(connection, data)
        if _is_busy(connection) and connection.head_timer is not None:
            connection.head_timer.cancel()
            connection.head_timer = None
        elif not _is_busy(connection) and connection.head_timer is None and not connection.transport.is_closing():
            expect_head(connection)

    protocol.connection_made, protocol.data_received = connection_made, data_received
    setattr(protocol, _WATCHED, True)


def _is_busy(connection: Any) -> bool:
    """Whether a request's head is there and its answer is not finished."""
    return connection.cycle is not None and not connection.cycle.response_complete


def _close_unless_busy(connection: Any) -> None:
    connection.head_timer = None
    if not _is_busy(connection):
        connection.transport.close()
