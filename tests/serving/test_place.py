"""One server a port: what listens, what starts at the same moment, what nobody may have is told before Ray starts."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from didact.errors import ModelError, ServerError
from didact.serving.deploy import deploy
from didact.serving.place import check_port, place_for
from tests.conftest import ROOT
from tests.fakes.models import save_tiny_base

CONFIG = ROOT / "serve" / "local.yaml"


@pytest.fixture()
def listener() -> Iterator[socket.socket]:
    """A socket of somebody else, open to sharing as those of Ray Serve are."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken


@pytest.fixture()
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_where_somebody_listens_is_refused(listener: socket.socket, host: str) -> None:
    taken = listener.getsockname()[1]
    with pytest.raises(ServerError, match=rf"port {taken} of {host} is taken by another program.*--port"):
        check_port(host, taken)


def test_a_port_whose_last_connection_has_just_ended_is_free(listener: socket.socket) -> None:
    address = listener.getsockname()
    with socket.create_connection(address), listener.accept()[0] as served:
        served.shutdown(socket.SHUT_RDWR)
    listener.close()
    check_port(*address)


@pytest.mark.parametrize(
    ("host", "number", "said"),
    [("192.0.2.1", 8000, "cannot listen at 192.0.2.1:8000.*http_options.host"), ("127.0.0.1", 70000, "does not exist")],
)
def test_places_where_nobody_can_listen_are_named(host: str, number: int, said: str) -> None:
    with pytest.raises(ServerError, match=said):
        check_port(host, number)


def test_two_servers_that_start_at_the_same_moment_are_told_apart(port: int) -> None:
    said = f"port {port} of 127.0.0.1 is taken by another didact server that runs or is starting"
    with place_for("127.0.0.1", port):
        with pytest.raises(ServerError, match=said), place_for("127.0.0.1", port):
            pass
        with place_for("127.0.0.1", port + 1 if port < 65535 else port - 1):
            pass
    with place_for("127.0.0.1", port):
        pass  # the place is free again


def test_a_taken_port_and_a_base_that_is_not_there_are_refused_before_ray_starts(
    listener: socket.socket, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "base").mkdir()
    with pytest.raises(ModelError, match=r"folder without config.json"):
        deploy(CONFIG, [f"model.base={tmp_path}/base"], port)
    base = save_tiny_base(tmp_path / "tiny")
    with pytest.raises(ServerError, match="is taken by another program"):
        deploy(CONFIG, [f"model.base={base}"], listener.getsockname()[1])
    assert not ray.is_initialized()


def test_a_base_that_is_cut_off_is_refused_before_ray_starts(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    base = save_tiny_base(tmp_path / "tiny")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(ModelError, match=r"model\.base .*model\.safetensors"):
        deploy(CONFIG, [f"model.base={base}"], port)
    assert not ray.is_initialized()
