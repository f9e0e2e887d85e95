"""The Api: the five verbs as a Python protocol.

Two real implementations exist: a gRPC client (kcore/client/channel.py) and an in-process session
of the apiserver (kcore/apiserver/session.py). A room is given one and cannot tell which. All
methods raise `ApiError`. Messages are kcore_api.kcore.api.v1.api_pb2's.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from kcore_api.kcore.api.v1 import api_pb2 as pb


class Api(Protocol):
    """Objects of any kind: read, followed and changed."""

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        """The kinds that are served."""
        ...

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        """One object."""
        ...

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        """A page of objects."""
        ...

    def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        """Objects, then their changes. Ends only by error or by being closed (`aclose`)."""
        ...

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        """Transactions. One alone raises its error; of several each result has its own."""
        ...
