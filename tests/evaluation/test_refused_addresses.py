"""Addresses that hand out a machine's keys: no source, no judge and no redirect leads there."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from didact.addresses import AddressRefused, check_address, check_host
from didact.datasets.places.remote_stream import describe
from didact.errors import DataError, EndpointRefused, RegistryError
from didact.evaluation.endpoint.bodies import Request
from didact.evaluation.endpoint.connection import Connection, Response
from didact.registry import Registry
from didact.spec import EndpointSpec, TrackingSpec
from didact.tracking import sync_run

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "::ffff:169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
]
SECRETS = "http://169.254.169.254/latest/meta-data/iam/rows.jsonl"


@contextmanager
def redirecting(target: str) -> Iterator[tuple[str, list[str]]]:
    """A server that sends everybody elsewhere; its address, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def post(url: str) -> Response:
    """Ask a judge at this address once."""

    async def once() -> Response:
        connection = Connection(EndpointSpec(url=url, model="judge"))
        try:
            return await connection.post(Request("/chat/completions", {}, 1), 30)
        finally:
            await connection.close()

    return asyncio.run(once())


@pytest.mark.fault("X5")
@pytest.mark.parametrize("address", METADATA)
def test_addresses_of_metadata_services_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused, match="link-local or metadata address"):
        check_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.4", "8.8.8.8", "2001:db8::1"])
def test_others_are_not(address: str) -> None:
    check_address(address)
    check_host(address)


def test_what_is_allowed_by_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_ALLOWED_ADDRESSES", "169.254.7.7, fd00:ec2::254")
    check_address("169.254.7.7")
    check_address("fd00:ec2::254")
    with pytest.raises(AddressRefused, match=r"DIDACT_ALLOWED_ADDRESSES=169\.254\.169\.254 allows it"):
        check_address("169.254.169.254")


@pytest.mark.fault("X5")
def test_a_source_there_is_refused() -> None:
    with pytest.raises(DataError, match=r"169\.254\.169\.254 is a link-local or metadata address"):
        describe(SECRETS)


@pytest.mark.fault("X5")
def test_a_source_that_redirects_there_is_refused() -> None:
    refused = pytest.raises(DataError, match=r"169\.254\.169\.254 is a link-local or metadata address")
    with redirecting(SECRETS) as (url, asked), refused:
        describe(f"{url}/rows.jsonl")
    assert set(asked) == {"/rows.jsonl"}


@pytest.mark.fault("X5")
@pytest.mark.parametrize(
    "url",
    [
        f"zip://rows.jsonl::{SECRETS}",
        f"zip://rows.jsonl::simplecache::{SECRETS}",
        "ftp://169.254.169.254/rows.jsonl",
        "webhdfs://100.100.100.200:50070/rows.jsonl",
        "sftp://somebody@2852039166/rows.jsonl",
        "zip://rows.jsonl::ftp://169.254.169.254/rows.zip",
    ],
)
def test_a_source_there_is_refused_whatever_leads_to_it(url: str) -> None:
    with pytest.raises(DataError, match="is a link-local or metadata address"):
        describe(url)


@pytest.mark.fault("X5")
def test_an_archive_that_is_sent_there_is_not_followed() -> None:
    refused = pytest.raises(DataError, match=r"169\.254\.169\.254 is a link-local or metadata address")
    with redirecting(SECRETS) as (url, asked), refused:
        describe(f"zip://rows.jsonl::{url}/rows.zip")
    assert set(asked) == {"/rows.zip"}


@pytest.mark.fault("X5")
@pytest.mark.parametrize("url", ["reference://rows.jsonl::file:///tmp/names.json", "generic://a", "zip://x::dask://y"])
def test_urls_whose_files_name_addresses_are_refused(url: str) -> None:
    with pytest.raises(DataError, match="whose files name addresses of their own"):
        describe(url)


@pytest.mark.fault("X5")
@pytest.mark.parametrize("uri", ["http://169.254.169.254", "https://[fd00:ec2::254]:5000", "http://2852039166/mlflow"])
def test_a_tracking_server_there_is_not_asked(uri: str, tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text("")
    result = sync_run(tmp_path, TrackingSpec(uri=uri))
    assert result.problem is not None and "link-local or metadata address" in result.problem
    with pytest.raises(RegistryError, match=r"tracking\.uri: found .*link-local or metadata address"):
        Registry(uri)


@pytest.mark.fault("X5")
@pytest.mark.parametrize("url", ["http://169.254.169.254/v1", "https://[fd00:ec2::254]/v1", "http://2852039166/v1"])
def test_a_judge_there_is_refused(url: str) -> None:
    with pytest.raises(EndpointRefused, match=r"url: found .*link-local or metadata address"):
        post(url)


@pytest.mark.fault("X5")
def test_a_judge_that_redirects_there_is_not_followed() -> None:
    with redirecting(SECRETS) as (url, asked):
        assert post(f"{url}/v1").status == 302
    assert asked == ["/v1/chat/completions"]
