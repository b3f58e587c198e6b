"""Every query of the dashboard, asked of a real Prometheus (Debian's package) that scraped a running server."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from tests.conftest import ROOT
from tests.fakes.registry import ShelfRegistry
from tests.serving.test_gateway import HELLO
from tests.serving.test_judge_by_own_server import served

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no program `prometheus` on the path"),
]


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes `target` every second; its address."""
    job = {"job_name": "didact", "static_configs": [{"targets": [target]}]}
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]})
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    program = shutil.which("prometheus")
    assert program is not None
    files = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with subprocess.Popen(
        [program, *files, f"--web.listen-address={place}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield f"http://{place}"
        finally:
            process.terminate()


def answered(url: str, query: str) -> bool:
    """Whether Prometheus finds a number for a query."""
    query = query.replace("$__rate_interval", "1m").replace("$model", ".*")
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    except httpx.HTTPError:  # it has not begun to listen
        return False
    assert answer["status"] == "success", (query, answer)
    return any(each["value"][1] != "NaN" for each in answer["data"]["result"])


def test_every_query_finds_numbers(worker: Worker, registry: ShelfRegistry, tmp_path: Path) -> None:
    catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=1)
    dashboard = json.loads((ROOT / "serve" / "grafana.json").read_text())
    open_queries = {target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}
    app = build_gateway(worker, catalog, GatewaySettings(max_new_tokens=8))
    deadline = time.monotonic() + 90
    with served(app) as url, prometheus(tmp_path, url.removeprefix("http://").removesuffix("/v1")) as asked:
        while open_queries:
            for model in ("tiny", "demo"):
                assert httpx.post(f"{url}/chat/completions", json={**HELLO, "model": model}).status_code == 200
            open_queries = {query for query in open_queries if not answered(asked, query)}
            assert time.monotonic() < deadline, open_queries
