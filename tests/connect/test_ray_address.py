"""What `RAY_ADDRESS`, Ray's token and the temporary folder may be, and what is said of those that cannot be used."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import services
from ray._raylet import AuthenticationTokenLoader, Config
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from didact import env
from didact.connect import check_ray, cluster_to_join
from didact.errors import ClusterError, PlacementError
from tests.fakes.ray_head import ray_head

TOKEN = "0123456789abcdef" * 2
NO_NODE = "answers, but this machine is no node of that cluster.*ray start --address=127"


@pytest.fixture(autouse=True)
def without_ray(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A user who has said nothing to Ray, and has no token."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "TMPDIR"):
            patch.setenv(name, "")  # remembers what was there
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        read_again()
        yield patch
    read_again()


def read_again() -> None:
    """Ray reads these variables once."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def give_token(home: Path, token: str = TOKEN) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)
    read_again()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:8265", "dashboard.*ray job submit --address http://127.0.0.1:8265"),
        ("https://ray.example.org", "dashboard"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("head", "RAY_ADDRESS=head is not an address; expected HOST:PORT"),
        ("head:", "expected HOST:PORT"),
        (":6379", "expected HOST:PORT"),
        ("head:six", "expected HOST:PORT"),
        ("head:66000", "expected HOST:PORT"),
    ],
)
def test_addresses_that_are_none_are_told_from_the_right_one(
    without_ray: pytest.MonkeyPatch, address: str, said: str
) -> None:
    without_ray.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=f"(?s){said}.*HOST:6379"):
        check_ray()


def test_an_address_where_nothing_answers_is_named_at_once(without_ray: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        without_ray.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        with pytest.raises(PlacementError, match=rf"no Ray answers at RAY_ADDRESS=127.0.0.1:{port} \(.*refused.*\)"):
            check_ray()


def test_an_open_cluster_is_joined_with_and_without_a_token(without_ray: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ray_head() as (_, address):
        without_ray.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=NO_NODE):
            check_ray()
        assert env.ray_auth_mode() is None
        without_ray.setenv("RAY_AUTH_MODE", "token")
        give_token(tmp_path)
        with pytest.raises(ClusterError, match=NO_NODE):
            check_ray()


def test_a_token_that_an_open_cluster_does_not_ask_for_is_asked_of_nobody(
    without_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_token(tmp_path)
    with ray_head() as (_, address):
        without_ray.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=NO_NODE):
            check_ray()
    # With a token kept in memory this process would refuse the calls of the cluster's nodes, and its actors die.
    assert not AuthenticationTokenLoader.instance().has_token()


def test_the_token_in_the_home_is_shown_to_a_cluster_that_asks_for_it(
    without_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_token(tmp_path)
    with ray_head(TOKEN) as (head, address):
        without_ray.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=NO_NODE):
            check_ray()
        assert (env.ray_auth_mode(), head.asked) == ("token", 2)


@pytest.mark.parametrize(
    ("mode", "shown", "said"),
    [
        (None, None, "asks for its token, and none is found.*ray get-auth-token.*set RAY_AUTH_TOKEN"),
        ("token", None, "RAY_AUTH_MODE=token, but no token is found.*ray get-auth-token"),
        (None, "fedcba9876543210", "refused the token found in .*ray get-auth-token"),
        ("token", "fedcba9876543210", "refused the token found in"),
        ("disabled", TOKEN, "asks for its token, but RAY_AUTH_MODE=disabled; set it to token"),
    ],
)
def test_a_missing_a_wrong_and_a_forbidden_token_are_told_apart(
    without_ray: pytest.MonkeyPatch, mode: str | None, shown: str | None, said: str
) -> None:
    if mode:
        without_ray.setenv("RAY_AUTH_MODE", mode)
    if shown:
        without_ray.setenv("RAY_AUTH_TOKEN", shown)
    read_again()
    with ray_head(TOKEN) as (head, address):
        without_ray.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=said) as caught:
            check_ray()
    assert head.asked <= 2
    assert TOKEN not in str(caught.value) and "fedcba" not in str(caught.value)


@pytest.mark.parametrize("address", ["", "local", " local "])
def test_a_local_ray_gets_a_token_that_is_written_nowhere(
    without_ray: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    without_ray.setenv("RAY_ADDRESS", address)
    assert env.ray_address() is None
    check_ray()
    assert env.ray_auth_mode() == "token"
    assert AuthenticationTokenLoader.instance().has_token()
    assert not list(tmp_path.iterdir()), "a token in the home changes what `ray start` does"


def test_a_user_who_wants_no_token_or_has_one_keeps_it(without_ray: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_ray.setenv("RAY_AUTH_MODE", "disabled")
    check_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ
    without_ray.delenv("RAY_AUTH_MODE")
    give_token(tmp_path)
    check_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert AuthenticationTokenLoader.instance().get_raw_token() == TOKEN


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_for_temporary_files_that_sockets_do_not_fit_is_refused(
    without_ray: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    without_ray.setenv(name, str(deep))
    with pytest.raises(ClusterError, match=rf"too long for Ray's sockets.*{deep}; set TMPDIR"):
        check_ray()
    without_ray.setenv(name, "/nowhere")
    with pytest.raises(ClusterError, match=r"does not exist.*: /nowhere; set TMPDIR"):
        check_ray()


def test_the_nodes_of_a_named_cluster_are_known_without_joining_it(
    without_ray: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, gone = b"\x02" * 28, GcsNodeInfo.GcsNodeState.Value("DEAD")
    nodes = [
        GcsNodeInfo(node_id=here, resources_total={"CPU": 4, "GPU": 2, "accelerator_type:A100": 1}),
        GcsNodeInfo(node_id=b"\x03" * 28, resources_total={"CPU": 8}),
        GcsNodeInfo(node_id=b"\x04" * 28, resources_total={"CPU": 64}, state=gone),
    ]
    assert cluster_to_join() is None
    without_ray.setattr(services, "find_node_ids", lambda: {here.hex()})  # what Ray reads of this machine's processes
    with ray_head(nodes=nodes) as (_, address):
        without_ray.setenv("RAY_ADDRESS", address)
        found = cluster_to_join()
    assert found is not None and found.nodes == (
        {"CPU": 4, "GPU": 2, "accelerator_type:A100": 1},
        {"CPU": 8},
    )
    without_ray.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ClusterError, match="Ray Client"):
        cluster_to_join()
