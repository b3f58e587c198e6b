"""The Hugging Face hub, for data sets and bases alike, served from a thread: what `HF_ENDPOINT` may name."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from tests.fakes.web_server import from_a_thread


@dataclass
class Hub:
    """One repository of the hub."""

    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> path -> content."""
    refs: dict[str, str] = field(default_factory=dict)
    """Branch or tag -> commit."""
    url: str = ""
    kind: Literal["datasets", "models"] = "datasets"
    asked: list[str] = field(default_factory=list)
    """Method and path of every request."""

    def commit(self, revision: str) -> str | None:
        """The commit that a revision points to."""
        found = self.refs.get(revision, revision)
        return found if found in self.commits else None


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        api = f"/api/{self.hub.kind}/{self.hub.name}"
        files = f"{'/datasets' if self.hub.kind == 'datasets' else ''}/{self.hub.name}/resolve/"
        if path == api or path.startswith(f"{api}/revision/"):
            self._info(self.hub.commit(path.removeprefix(api).removeprefix("/revision/") or "main"))
        elif path.startswith(f"{api}/tree/"):
            revision = path.removeprefix(f"{api}/tree/").partition("/")[0]
            self._tree(self.hub.commit(revision))
        elif path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            self._file(self.hub.commit(revision), name)
        else:
            self._nothing("RepoNotFound")

    def _info(self, commit: str | None) -> None:
        if commit is None:
            self._nothing("RevisionNotFound")
            return
        siblings = [{"rfilename": path} for path in self.hub.commits[commit]]
        self._json({"id": self.hub.name, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def _tree(self, commit: str | None) -> None:
        if commit is None:
            self._nothing("RevisionNotFound")
            return
        files = self.hub.commits[commit].items()
        self._json(
            [{"type": "file", "path": path, "size": len(content), "oid": _oid(content)} for path, content in files]
        )

    def _file(self, commit: str | None, name: str) -> None:
        content = self.hub.commits[commit].get(name) if commit else None
        if content is None or commit is None:
            self._nothing("EntryNotFound" if commit else "RevisionNotFound")
            return
        asked = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        first, last = int(asked[0] or 0), int(asked[2] or len(content) - 1)
        marks = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if asked[1]:
            marks["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206 if asked[1] else 200, content[first : last + 1], marks)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _nothing(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Serve it until the block ends."""
    with from_a_thread(type("Handler", (_Handler,), {"hub": hub})) as hub.url:
        yield hub


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
