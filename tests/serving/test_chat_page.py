"""The chat page's script speaks of elements that the page has, and of no other address than the server's own."""

import re
from collections.abc import Callable
from importlib import resources

from fastapi.testclient import TestClient

from didact.serving.replica.worker import Worker

PAGE = resources.files("didact.serving.api").joinpath("chat.html").read_text(encoding="utf-8")


def test_every_element_that_the_script_asks_for_is_on_the_page() -> None:
    asked, there = set(re.findall(r'at\("(\w+)"\)', PAGE)), re.findall(r'\bid="(\w+)"', PAGE)
    assert asked <= set(there) and len(there) == len(set(there))
    assert {"question", "model", "turns"} <= asked


def test_the_page_loads_nothing_from_elsewhere(worker: Worker, serve_worker: Callable[..., TestClient]) -> None:
    with serve_worker(worker) as client:
        answer = client.get("/")
        paths = {path for path in re.findall(r'api\("([^"]+)"\)', PAGE)}
        assert answer.text == PAGE and answer.headers["content-type"].startswith("text/html")
        assert {client.options(f"/{path}").status_code for path in paths} == {405}, "an address that is none is a 404"
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://""", PAGE)
