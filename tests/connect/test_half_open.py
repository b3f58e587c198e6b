"""Connections that never become requests, on the server that Ray Serve's proxy runs on."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from didact.connect.half_open import close_half_open

Connect = Callable[[], socket.socket]
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["path"] == "/body":
        while (await receive()).get("more_body"):
            pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(params=["httptools", "h11"])
def connect(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    for protocol in (H11Protocol, HttpToolsProtocol):  # given back as they were
        for name in ("connection_made", "data_received"):
            monkeypatch.setattr(protocol, name, getattr(protocol, name))
        monkeypatch.setattr(protocol, "watched_by_didact", True, raising=False)
        del protocol.watched_by_didact
    assert close_half_open(0.2) == close_half_open(0.2) == []
    config = uvicorn.Config(hello, http=request.param, log_level="error", lifespan="off", timeout_keep_alive=60)
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with contextlib.ExitStack() as stack:

        def new() -> socket.socket:
            return stack.enter_context(socket.create_connection(listening.getsockname(), timeout=30))

        yield new
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nx-a"],
    ids=["nothing", "verb", "line", "head"],
)
def test_a_head_that_does_not_arrive_ends_the_connection(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    assert connection.recv(100) == b""


def test_requests_pass_and_the_next_head_must_come_whole_too(connect: Connect) -> None:
    connection = connect()
    for _ in range(2):
        connection.sendall(WHOLE)
        answer = b""
        while not answer.endswith(b"hello"):
            answer += connection.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
    connection.sendall(WHOLE[:20])
    assert connection.recv(100) == b""


def test_a_slow_body_is_left_to_the_application(connect: Connect) -> None:
    slow, idle = connect(), connect()
    slow.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\ncontent-length: 2\r\n\r\na")
    assert idle.recv(100) == b""  # which takes as long as the head of the other had
    slow.sendall(b"b")
    assert slow.recv(1000).startswith(b"HTTP/1.1 200")
