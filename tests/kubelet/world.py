"""A kernel in memory with one node's kubelet around it, in virtual time, with real permissions."""

import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import namespace_pb2, pool_pb2

from kcore import admission
from kcore.apiserver.identity import ADMIN, User
from kcore.apiserver.session import Session
from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.kernel import kernel, schema
from kcore.kernel.store.memory import MemoryStore
from kcore.reconcile import transaction
from kcore.tasks import Tasks
from kcore.wire.errors import ApiError, Reason

KINDS = pathlib.Path(__file__).parents[2] / "generated" / "kinds.binpb"
SCHEMA = schema.compile_schema(KINDS.read_bytes())
KUBELET = User("system:node:n1", ("system:nodes", "system:authenticated"))

M = TypeVar("M", bound=Message)


class Flaky:
    """A session that can be cut off."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.down = False
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        if name == "watch":
            return self._watch

        async def call(request: Any) -> Any:
            if self.down:
                raise ApiError(Reason.UNAVAILABLE, "connection refused")
            self.commits += name == "commit"
            return await getattr(self._session, name)(request)

        return call

    async def _watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        if self.down:
            raise ApiError(Reason.UNAVAILABLE, "connection refused")
        async for response in self._session.watch(request):
            yield response
            if self.down:
                raise ApiError(Reason.UNAVAILABLE, "connection lost")


@dataclass
class World:
    """What a test has. `api` is the kubelet's, `admin` may do everything."""

    api: Flaky
    admin: Session
    clock: LoopClock
    chance: Chance
    tasks: Tasks

    async def get(self, kind: type[M], name: str, namespace: str = "") -> M | None:
        """An object, if it is there."""
        ref = pb.Ref(kind=kind.DESCRIPTOR.full_name, namespace=namespace, name=name)
        try:
            return kind.FromString((await self.admin.get(pb.GetRequest(ref=ref))).object)
        except ApiError as error:
            if error.reason is Reason.NOT_FOUND:
                return None
            raise

    async def do(self, *transactions: pb.Transaction) -> None:
        """Changes something as an administrator."""
        for one in transactions:
            one.request_id = self.chance.uid()
            await self.admin.commit(pb.CommitRequest(transactions=[one]))

    async def until(self, true: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
        """Waits until it is so; what it was."""
        ends = self.clock.monotonic() + seconds
        while not (found := await true()):
            assert self.clock.monotonic() < ends, "it never was so"
            await self.clock.sleep(0.05)
        return found


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """The namespaces are there, and pools of pod addresses."""
    clock, chance = LoopClock(), Chance(1)
    store = MemoryStore(chance.fork("store"))
    async with (
        kernel.opened(store, SCHEMA, admission.BY_KIND, clock, chance.fork("kernel")) as made,
        Tasks() as tasks,
    ):
        here = World(
            Flaky(Session(made, KUBELET)), Session(made, ADMIN), clock, chance.fork("world"), tasks
        )
        for name in ("default", "kube-system", "kube-node-lease"):
            namespace = namespace_pb2.Namespace()
            namespace.metadata.name = name
            await here.do(transaction.create(namespace))
        pool = pool_pb2.Pool(spec=pool_pb2.PoolSpec(cidr="10.244.0.0/16", block_size=24))
        pool.metadata.name = "pod-cidrs"
        await here.do(transaction.create(pool))
        yield here
        tasks.cancel()
