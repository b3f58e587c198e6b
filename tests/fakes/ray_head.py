"""A Ray head that tells its nodes to those who show the right token, and does nothing else."""

from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager

import grpc
from ray.core.generated import gcs_service_pb2 as messages
from ray.core.generated import gcs_service_pb2_grpc as services
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from typing_extensions import override

NODE = GcsNodeInfo(node_id=b"\x01" * 28)


class RayHead(services.NodeInfoGcsServiceServicer):
    """Knows the nodes that it is given."""

    def __init__(self, token: str | None, nodes: Sequence[GcsNodeInfo]) -> None:
        self._token = token
        self._nodes = nodes
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
        reply.node_info_list.extend(self._nodes)
        return reply


@contextmanager
def ray_head(token: str | None = None, nodes: Sequence[GcsNodeInfo] = (NODE,)) -> Iterator[tuple[RayHead, str]]:
    """Serve one; yields it and its address.

    Args:
        token: that callers must show; None for an open cluster.
        nodes: of the cluster; by default one, which is on no machine.
    """
    server = grpc.server(futures.ThreadPoolExecutor(1))
    head = RayHead(token, nodes)
    services.add_NodeInfoGcsServiceServicer_to_server(head, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield head, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
