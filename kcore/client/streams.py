"""Streams to running pods, as Python protocols: `PodStreams` for people, `NodeLink` for kubelets.

Two implementations of each exist: the gRPC client (kcore/client/channel.py) and the apiserver's
own, in process (kcore/apiserver/streams.py). A room is given one and cannot tell which. All raise
`ApiError`; frames are those of kcore/api/v1/pod_stream.proto and node.proto.

Whoever calls holds an async iterator: what is not taken from it is not sent by the other end, and
`aclose` (or the end of the caller's task) ends the stream at both ends. Where an iterator of
requests is passed in, it is read only as fast as the other end takes them. Nothing is dialled, and
no request read, before the first answer is asked for: who only talks must have somebody read.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from kcore_api.kcore.api.v1 import node_pb2, pod_stream_pb2


class PodStreams(Protocol):
    """What people do to a running pod."""

    def logs(
        self, request: pod_stream_pb2.LogsRequest
    ) -> AsyncGenerator[pod_stream_pb2.LogsResponse, None]:
        """A container's log; with `follow` until the container ends."""
        ...

    def exec(
        self, requests: AsyncIterator[pod_stream_pb2.ExecRequest]
    ) -> AsyncGenerator[pod_stream_pb2.ExecResponse, None]:
        """Runs a command. The first request opens; the last response has the exit code."""
        ...

    def attach(
        self, requests: AsyncIterator[pod_stream_pb2.AttachRequest]
    ) -> AsyncGenerator[pod_stream_pb2.AttachResponse, None]:
        """Joins a container's main process. The first request opens."""
        ...

    def port_forward(
        self, requests: AsyncIterator[pod_stream_pb2.PortForwardRequest]
    ) -> AsyncGenerator[pod_stream_pb2.PortForwardResponse, None]:
        """One connection to a port of a pod. The first request opens."""
        ...


class NodeLink(Protocol):
    """A kubelet's end of the streams."""

    def link(self, node: str) -> AsyncGenerator[node_pb2.OpenSession, None]:
        """Held open as long as the kubelet lives: says which streams are wanted.

        Ends by ApiError; the kubelet then links again. A second link of a node ends the first.
        """
        ...

    def session(
        self, requests: AsyncIterator[node_pb2.SessionRequest]
    ) -> AsyncGenerator[node_pb2.SessionResponse, None]:
        """One stream: requests are what the container says, responses what the caller says.

        The first request carries the session's id (and may carry a frame); the end of `requests`
        is the stream's end. The responses end when all has been said; where the caller has gone
        before, by ApiError.
        """
        ...
