"""An endpoint that speaks OpenAI's API over HTTP from a thread, well or as badly as a test wants."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

from tests.fakes.web_server import from_a_thread

KEY = "sk-canary-4711"
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Said:
    """One response."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs_after: int | None = None
    """Bytes after which nothing more comes, until the server ends."""
    breaks_after: int | None = None
    """Bytes after which the connection is cut, although more was promised."""


def completion(text: str | None, finish: str = "stop", **message: Any) -> Said:
    """A chat completion as a good endpoint sends it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return body({"object": "chat.completion", "choices": [choice], "usage": usage(7, len(text or ""))})


def usage(prompt: int, answer: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def body(values: Any, status: int = 200, **headers: str) -> Said:
    return Said(json.dumps(values).encode(), status, {"Content-Type": "application/json", **headers})


def error(status: int, message: str = "bad", code: str = "", **headers: str) -> Said:
    return body({"error": {"message": message, "code": code}}, status, **headers)


@dataclass
class FakeEndpoint:
    """What it answers, and what it was asked."""

    answer: Callable[[dict[str, Any]], Said]
    """From a request's body to what is said."""
    url: str = ""
    key: str | None = None
    """Wanted as a bearer, where one is."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of all requests, in order of arrival."""
    paths: list[str] = field(default_factory=list)
    end: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    endpoint: ClassVar[FakeEndpoint]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.endpoint.asked.append(asked)
        self.endpoint.paths.append(self.path)
        if self.endpoint.key and self.headers.get("Authorization") != f"Bearer {self.endpoint.key}":
            given = self.headers.get("Authorization", "")
            self._say(error(401, f"Incorrect API key provided: {given}"))
            return
        self._say(self.endpoint.answer(asked))

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, said: Said) -> None:
        self.send_response(said.status)
        for name, value in {**said.headers, "Content-Length": str(len(said.content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        for stop in (said.hangs_after, said.breaks_after):
            if stop is not None:
                self.wfile.write(said.content[:stop])
                self.wfile.flush()
                self.close_connection = True
        if said.hangs_after is not None:
            self.endpoint.end.wait(20)
        elif said.breaks_after is None:
            self.wfile.write(said.content)


@contextmanager
def serve_endpoint(answer: Callable[[dict[str, Any]], Said], key: str | None = None) -> Iterator[FakeEndpoint]:
    """Serve it on a free port until the block ends."""
    endpoint = FakeEndpoint(answer, key=key)
    with from_a_thread(type("Handler", (_Handler,), {"endpoint": endpoint})) as address:
        endpoint.url = f"{address}/v1"
        try:
            yield endpoint
        finally:
            endpoint.end.set()


def one_after_the_other(*said: Said) -> Callable[[dict[str, Any]], Said]:
    """The responses in turn; the last one for ever."""
    waiting = list(said)
    return lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]


class QuickClock:
    """Time that passes only while somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
