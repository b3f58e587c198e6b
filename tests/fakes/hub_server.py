"""The Hugging Face hub, for data sets and bases alike, served from a thread: what `HF_ENDPOINT` may name."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils.sha import git_hash

from tests.fakes.web_server import from_a_thread

_WRITTEN = ("/repos/create", "/preupload/main", "/commit/main", "/info/lfs/objects/batch", "/validate-yaml")


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
    private: bool = False
    exists: bool = True
    """Whether the repository is there; `POST /api/repos/create` makes it."""
    refuses: int = 0
    """Status with which writing is refused; 0 for none."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256, as they were put."""
    messages: list[str] = field(default_factory=list)
    """Of the commits that were uploaded."""

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
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        if not path.endswith(_WRITTEN):
            self._answer()
            return
        self.hub.asked.append(f"POST {path}")
        if self.hub.refuses:
            self._send(self.hub.refuses, b"", {})
        elif path.endswith("/validate-yaml"):
            self._json({"errors": [], "warnings": []})
        elif path.endswith("/repos/create"):
            asked = json.loads(content)
            self.hub.exists, self.hub.private = True, asked.get("visibility") == "private"
            self._json({"url": f"{self.hub.url}/{self.hub.name}", "id": self.hub.name})
        elif path.endswith("/preupload/main"):
            there = self.hub.commits.get(self.hub.refs.get("main", ""), {})
            paths = [each["path"] for each in json.loads(content)["files"]]
            self._json({"files": [{**_mode(path), "path": path, **_known(path, there)} for path in paths]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(content)["objects"]
            self._json({"objects": [{**each, **_upload(self.hub.url, each["oid"])} for each in objects]})
        else:
            self._commit([json.loads(line) for line in content.splitlines()])

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append(f"PUT {self.path}")
        self.hub.stored[hashlib.sha256(content).hexdigest()] = content
        self._send(200, b"", {})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        """One line for the message, one for each file: its content, or the digest of one that was put before."""
        files = dict(self.hub.commits.get(self.hub.refs.get("main", ""), {}))
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = hashlib.sha1(str(len(self.hub.messages)).encode()).hexdigest()
        self.hub.commits[commit], self.hub.refs["main"] = files, commit
        url = f"{self.hub.url}/{self.hub.name}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "success": True})

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        api = f"/api/{self.hub.kind}/{self.hub.name}"
        files = f"{'/datasets' if self.hub.kind == 'datasets' else ''}/{self.hub.name}/resolve/"
        if not self.hub.exists:
            self._nothing("RepoNotFound")
        elif path == api or path.startswith(f"{api}/revision/"):
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
        self._json({"id": self.hub.name, "sha": commit, "siblings": siblings, "private": self.hub.private, "tags": []})

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


def _mode(path: str) -> dict[str, Any]:
    return {"uploadMode": "lfs" if path.endswith(".safetensors") else "regular", "shouldIgnore": False}


def _known(path: str, there: dict[str, bytes]) -> dict[str, str]:
    """By what the client sees that a file is there as it is: of a large one its sha256, of others git's hash."""
    if path not in there:
        return {}
    content = there[path]
    large = _mode(path)["uploadMode"] == "lfs"
    return {"oid": hashlib.sha256(content).hexdigest() if large else git_hash(content)}


def _upload(url: str, oid: str) -> dict[str, Any]:
    return {"actions": {"upload": {"href": f"{url}/lfs/{oid}"}}}


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
