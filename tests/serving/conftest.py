"""A gateway in this process: the real application, engine and catalog on a tiny model and a registry on a shelf."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import TINY_BASE, save_tiny_adapter
from tests.fakes.models import tiny_model
from tests.fakes.registry import ShelfRegistry


@pytest.fixture(scope="session")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapter folders for the tiny llama."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed in (1, 2, 3):
        save_tiny_adapter(folder / str(seed), seed)
    return [folder / str(seed) for seed in (1, 2, 3)]


@pytest.fixture()
def registry(adapters: list[Path]) -> ShelfRegistry:
    """`demo` with two versions, the first of them champion."""
    shelf = ShelfRegistry()
    shelf.add("demo", adapters[0], alias="champion")
    shelf.add("demo", adapters[1])
    return shelf


@pytest.fixture()
def worker(registry: ShelfRegistry, tmp_path: Path) -> Iterator[Worker]:
    """A worker on the tiny llama."""
    with open_worker(registry, tmp_path) as each:
        yield each


@contextmanager
def open_worker(registry: ShelfRegistry, tmp_path: Path, **limits: int) -> Iterator[Worker]:
    tokenizer = byte_tokenizer()
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), tokenizer, **limits)
    worker = Worker(engine, tokenizer, AdapterStore(registry, tmp_path), TINY_BASE, "tiny")
    yield worker
    worker.close()


@pytest.fixture()
def serve_worker(registry: ShelfRegistry) -> Callable[..., TestClient]:
    """Build the application over a worker; use the result as a context manager."""

    def build(worker: Worker, **settings: object) -> TestClient:
        catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=0.02)
        app = build_gateway(worker, catalog, GatewaySettings(max_new_tokens=8, **settings))
        return TestClient(app, raise_server_exceptions=False)

    return build


@pytest.fixture()
def client(worker: Worker, serve_worker: Callable[..., TestClient]) -> Iterator[TestClient]:
    """The running application."""
    with serve_worker(worker) as each:
        yield each


@pytest.fixture()
def engine() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_adapters=2, max_batch_size=4)
    yield engine
    engine.close()
