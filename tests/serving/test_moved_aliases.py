"""A moved alias is followed by looking at the registry, whoever tells of it, twice, falsely, late or not at all."""

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence

import pytest
from fastapi.testclient import TestClient

from didact.registry import ModelVersion
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry

PERIODS = 2
"""Looks within which every name means what the registry says."""
Happens = Callable[[ShelfRegistry], None]


def down(registry: ShelfRegistry) -> None:
    registry.down = True


def back(registry: ShelfRegistry) -> None:
    registry.down = False


def to(version: int) -> Happens:
    return lambda registry: registry.point("demo", "champion", version)


@pytest.mark.fault("M9")
@pytest.mark.parametrize(
    ("happened", "means", "prepared"),
    [
        ([to(2)], 2, [2]),  # nobody told
        ([to(2), to(2), to(2)], 2, [2]),  # and told three times over
        ([to(1)], 1, []),  # set to what it was
        ([to(2), to(1)], 1, []),  # there and back between two looks
        ([down, to(2), back], 2, [2]),  # while the registry did not answer
        ([down, to(2), to(1), back], 1, []),
    ],
)
def test_a_moved_alias_is_followed_within_two_looks(
    registry: ShelfRegistry, happened: Sequence[Happens], means: int, prepared: list[int]
) -> None:
    made_ready: list[int] = []

    def prepare(version: ModelVersion) -> None:
        made_ready.append(version.version)

    names = Catalog("tiny", registry, prepare, poll_seconds=60)

    def meant() -> int | None:
        version = names.resolve("demo").version
        return version.version if version else None

    assert meant() == 1
    for each in happened:
        each(registry)
        if registry.down:
            names.refresh()  # which finds nobody there, and changes nothing
            assert meant() == 1
    for _ in range(PERIODS):
        names.refresh()
    assert (meant(), made_ready) == (means, prepared)
    names.refresh()
    assert (meant(), made_ready) == (means, prepared), "nothing is made ready twice"


@pytest.mark.fault("M9")
@pytest.mark.parametrize("path", ["/webhook", "/v1/webhook"])
def test_nobody_can_tell_a_server_that_an_alias_moved(worker: Worker, registry: ShelfRegistry, path: str) -> None:
    """A notice in MLflow's form, sent twice: there is no door for it, so none can be forged or sent again late."""
    made_ready: list[int] = []

    def prepare(version: ModelVersion) -> None:
        made_ready.append(version.version)

    names = Catalog("tiny", registry, prepare, poll_seconds=600)
    moved = {"name": "demo", "alias": "champion", "version": "2"}
    body = json.dumps({"entity": "model_version_alias", "action": "created", "data": moved}).encode()
    signature = hmac.new(b"somebody's key", body, hashlib.sha256).hexdigest()
    headers = {"X-MLflow-Signature": f"v1,{signature}", "X-MLflow-Timestamp": "1700000000"}
    with TestClient(build_gateway(worker, names, GatewaySettings()), raise_server_exceptions=False) as client:
        looks = registry.questions
        for _ in range(2):
            assert client.post(path, content=body, headers=headers).status_code == 404
        assert (registry.questions, made_ready) == (looks, []), "it was not even looked"
