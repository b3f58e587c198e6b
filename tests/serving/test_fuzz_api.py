"""Whatever the schema allows, and much that it forbids, sent to every route: nothing ends in a 500 or a hang."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="the package schemathesis is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402

from didact.serving.api.application import build_gateway  # noqa: E402
from didact.serving.api.gateway import GatewaySettings  # noqa: E402
from didact.serving.replica.catalog import Catalog  # noqa: E402
from tests.fakes.adapters import save_tiny_adapter  # noqa: E402
from tests.fakes.registry import ShelfRegistry  # noqa: E402
from tests.serving.conftest import open_worker  # noqa: E402
from tests.serving.test_judge_by_own_server import served  # noqa: E402

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("fuzz")
    registry = ShelfRegistry()
    save_tiny_adapter(folder / "demo", 1)
    registry.add("demo", folder / "demo", alias="champion")
    with open_worker(registry, Path(folder)) as worker:
        catalog = Catalog("tiny", registry, worker.prepare, poll_seconds=1)
        limits = GatewaySettings(max_new_tokens=4, request_timeout_seconds=2)
        with served(build_gateway(worker, catalog, limits)) as url:
            yield schemathesis.openapi.from_url(url.removesuffix("/v1") + "/openapi.json")


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_request_ends_in_a_500(api: "schemathesis.BaseSchema", mode: str) -> None:
    routes = [result.ok() for result in api.get_all_operations()]
    assert len(routes) >= 10
    for route in routes:

        @given(case=route.as_strategy(generation_mode=GenerationMode[mode]))
        @settings(
            max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
        )
        def send(case: "schemathesis.Case") -> None:
            if isinstance(case.body, dict) and len(str(case.body)) % 2:
                case.body["model"] = "tiny"  # half of the requests reach the model
            answer = case.call(timeout=30)
            assert answer.status_code < 500 or answer.status_code == 504, (answer.status_code, answer.text)
            if answer.status_code >= 400 and case.method != "HEAD":
                assert answer.json()["error"]["message"], answer.text

        try:
            send()
        except Unsatisfiable:  # a route without parameters has nothing that could be wrong
            assert mode == "NEGATIVE"
