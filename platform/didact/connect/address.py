"""Whether the Ray that the environment names can be joined, or one of our own started: asked before anything else."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import GetAllNodeInfoRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from didact import env
from didact.errors import ClusterError, PlacementError

_PATIENCE_SECONDS = 15.0
_EXAMPLE = "RAY_ADDRESS=HOST:6379, the address that `ray start --head` prints"
_TOKENS = "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
_GET_TOKEN = "Run `ray get-auth-token` on the cluster's head node, and set RAY_AUTH_TOKEN to what it prints"
_SOCKET_BYTES = 107 if sys.platform.startswith("linux") else 103
_BELOW_TEMP = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")


def check_ray() -> None:
    """Nothing, where this process is connected to Ray, or can be: to the one at `RAY_ADDRESS`, else to one of its own.

    Settles how this process shows itself to the cluster: with Ray's token where that is asked for.

    Raises:
        ClusterError: `RAY_ADDRESS`, the token or the temporary folder must be changed.
        PlacementError: nothing answers at the address.
    """
    if ray.is_initialized():
        return
    address = env.ray_address()
    if address is None:
        _check_folder(env.ray_temp_dir())
        _settle_token()
        return
    _check_cluster(*_parsed(address), address)


def nodes_at(address: str) -> list[dict[str, Any]]:
    """The nodes of a cluster that this machine is one of, as `ray.nodes()` gives them, asked without joining it.

    Raises:
        ClusterError, PlacementError: see `check_ray`.
    """
    alive = GcsNodeInfo.GcsNodeState.Value("ALIVE")
    return [
        {"Alive": node.state == alive, "Resources": dict(node.resources_total), "Labels": dict(node.labels)}
        for node in _check_cluster(*_parsed(address), address)
    ]


def _parsed(address: str) -> tuple[str, int]:
    """Host and port of a cluster's address."""
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"RAY_ADDRESS={address} is the address of Ray's dashboard, to which jobs are sent: `ray job submit "
            f"--address {address} -- python jobs/finetune.py ...`. To join the cluster from here, set {_EXAMPLE}"
        )
    if address.startswith("ray://"):
        raise ClusterError(
            f"RAY_ADDRESS={address} is for Ray Client, which cannot train. On a node of the cluster set {_EXAMPLE}; "
            "from elsewhere use `ray job submit`"
        )
    if address == "auto":
        try:
            address = services.get_ray_address_from_environment("auto", None)
        except ConnectionError:
            raise ClusterError(
                f"RAY_ADDRESS=auto: no Ray runs on this machine. Start one with `ray start --head`, set {_EXAMPLE}, or "
                "leave RAY_ADDRESS out: a local Ray is started for the time of the command"
            ) from None
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ClusterError(f"RAY_ADDRESS={address} is not an address; expected HOST:PORT, as in {_EXAMPLE}")
    return host, int(port)


def _check_cluster(host: str, port: int, given: str) -> Sequence[GcsNodeInfo]:
    """The nodes of a cluster, of which this machine is one."""
    has_token = _has_token()
    if env.ray_auth_mode() == "token" and not has_token:
        raise ClusterError(f"RAY_AUTH_MODE=token, but no token is found in {_TOKENS}. {_GET_TOKEN}")
    nodes, error = _ask_for_nodes(host, port)
    if _asks_for_token(error) and env.ray_auth_mode() is None and has_token:
        # Ray shows it to a cluster that is named only where `RAY_AUTH_MODE` says so.
        _show_token()
        nodes, error = _ask_for_nodes(host, port)
    if _asks_for_token(error):
        cluster, mode = f"the Ray at RAY_ADDRESS={given}", env.ray_auth_mode()
        if mode == "token":
            raise ClusterError(f"{cluster} refused the token found in {_TOKENS}. {_GET_TOKEN}")
        if mode is None:
            raise ClusterError(f"{cluster} asks for its token, and none is found in {_TOKENS}. {_GET_TOKEN}")
        raise ClusterError(f"{cluster} asks for its token, but RAY_AUTH_MODE={mode}; set it to token")
    if error is not None:
        raise PlacementError(
            f"no Ray answers at RAY_ADDRESS={given} ({_reason(error)}). Start it there with `ray start --head --port "
            f"{port}`, or set {_EXAMPLE}; without RAY_ADDRESS a local Ray is started"
        )
    _check_node([node.node_id.hex() for node in nodes], f"{host}:{port}")
    return nodes


def _asks_for_token(error: grpc.RpcError | None) -> bool:
    return error is not None and error.code() is grpc.StatusCode.UNAUTHENTICATED


def _ask_for_nodes(host: str, port: int) -> tuple[Sequence[GcsNodeInfo], grpc.RpcError | None]:
    """The nodes that the cluster's head tells, or what keeps it from that."""
    target = f"{host}:{port}" if ":" not in host or host.startswith("[") else f"[{host}]:{port}"
    # Ray's own client asks again for minutes before it says why.
    with init_grpc_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = NodeInfoGcsServiceStub(channel).GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            return (), error
    return reply.node_info_list, None


def _check_node(of_cluster: Sequence[str], target: str) -> None:
    if services.find_node_ids().isdisjoint(of_cluster):
        raise ClusterError(
            f"RAY_ADDRESS={target} answers, but this machine is no node of that cluster, and a command runs on "
            f"one. Add this machine with `ray start --address={target}`, or send the command with `ray job submit`"
        )


def _reason(error: grpc.RpcError) -> str:
    """One line of gRPC's."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {_PATIENCE_SECONDS:g} s"
    words = " ".join((error.details() or error.code().name).split())
    return words.rpartition("; last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")


def _check_folder(folder: Path) -> None:
    """A folder of this machine where Ray keeps its sockets and logs."""
    advice = "set TMPDIR (or RAY_TMPDIR for Ray alone) to another, such as /tmp"
    if len(os.fsencode(folder)) + _BELOW_TEMP > _SOCKET_BYTES:
        raise ClusterError(
            f"the path of the folder for temporary files is too long for Ray's sockets ({len(os.fsencode(folder))} "
            f"bytes, at most {_SOCKET_BYTES - _BELOW_TEMP}): {folder}; {advice}"
        )
    within = folder / "ray" if (folder / "ray").is_dir() else folder
    if not os.access(within, os.W_OK | os.X_OK):
        what = "cannot be written" if within.exists() else "does not exist"
        raise ClusterError(
            f"the folder for temporary files {what}, where Ray keeps sockets and logs: {within}; {advice}"
        )


def _settle_token() -> None:
    """A local Ray asks for a token. Where the user has none it is for this process only: one in the user's home would
    change what `ray start` does from then on, and there may be no home to write to."""
    if env.ray_auth_mode() in (None, "token"):
        if not _has_token():
            env.make_ray_token()
        _show_token()


def _has_token() -> bool:
    """Whether the user has a token, however Ray was told to use it."""
    loader = AuthenticationTokenLoader.instance()
    found: bool = loader.has_token(ignore_auth_mode=True)
    # What was looked up is kept, and this process would from then on ask the cluster's own nodes for it.
    loader.reset_cache()
    return found


def _show_token() -> None:
    env.set_default("RAY_AUTH_MODE", "token")
    Config.initialize("")  # Ray has read the variable at import
