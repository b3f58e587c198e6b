"""A Ray head that tells its nodes to those who show the right token, and does nothing else."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from ray.core.generated import gcs_service_pb2 as messages
from ray.core.generated import gcs_service_pb2_grpc as services
from typing_extensions import override


class RayHead(services.NodeInfoGcsServiceServicer):
    """Knows one node, which is on no machine."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self.asked = 0
        """How often."""

    @override
    def GetAllNodeInfo(
        self, request: messages.GetAllNodeInfoRequest, context: grpc.ServicerContext
    ) -> messages.GetAllNodeInfoReply:
        self.asked += 1
        shown = dict(context.invocation_metadata()).get("authorization")
        if self._token is not None and shown != f"Bearer {self._token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        reply = messages.GetAllNodeInfoReply()
        reply.node_info_list.add(node_id=b"\x01" * 28)
        return reply


@contextmanager
def ray_head(token: str | None = None) -> Iterator[tuple[RayHead, str]]:
    """Serve one; yields it and its address.

    Args:
        token: that callers must show; None for an open cluster.
    """
    server = grpc.server(futures.ThreadPoolExecutor(1))
    head = RayHead(token)
    services.add_NodeInfoGcsServiceServicer_to_server(head, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield head, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
