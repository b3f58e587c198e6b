"""A folder served over HTTP from a thread, with the faults that servers have."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class WebFolder:
    """What is served, and how badly."""

    folder: Path
    url: str = ""
    etag: bool = True
    ranges: bool = True
    lengths: bool = True
    """Whether a response says how long it is; without, it ends where the connection does."""
    stops_after: int | None = None
    """Bytes after which a response breaks off, although it promised more."""
    num_breaks: int | None = None
    """How many responses break off; None for all."""
    refuses: bool = False
    """Whether everything is forbidden."""
    while_sending: Callable[[], object] = bool
    """Called in a GET between reading the file and sending it."""
    gets: list[str] = field(default_factory=list)
    """Range asked for in each GET, empty for the whole."""

    def breaks(self) -> bool:
        if self.stops_after is None or self.num_breaks == 0:
            return False
        self.num_breaks = None if self.num_breaks is None else self.num_breaks - 1
        return True


@contextmanager
def serve(folder: Path) -> Iterator[WebFolder]:
    """Serve `folder` until the block ends."""
    web = WebFolder(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            web.gets.append(self.headers.get("Range", ""))
            self._answer(with_body=True)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            if web.refuses:
                self.send_error(403)
                return
            file = web.folder / self.path.partition("?")[0].lstrip("/")
            if file.is_dir():
                names = sorted(each.name for each in file.iterdir())
                content = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
            elif file.is_file():
                content = file.read_bytes()
            else:
                self.send_error(404)
                return
            first = 0
            if web.ranges and self.headers.get("Range"):
                first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if first else 200)
            if web.lengths or not with_body:
                self.send_header("Content-Length", str(len(content) - first))
            if web.etag:
                self.send_header("ETag", f'"{hash(content)}"')
            self.end_headers()
            if with_body:
                web.while_sending()
                whole = content[first:]
                self.wfile.write(whole[: web.stops_after] if web.breaks() else whole)

    with from_a_thread(Handler) as web.url:
        yield web


@contextmanager
def from_a_thread(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with `handler` on a free port until the block ends; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
