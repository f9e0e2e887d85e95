"""A kernel in memory behind a real gRPC server on a Unix socket, and channels to it."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, namespace_pb2, node_pb2, pod_pb2, pool_pb2

from kcore import admission
from kcore.apiserver.identity import ADMIN, User
from kcore.apiserver.run import Apiserver, Listeners, serving
from kcore.apiserver.session import Session
from kcore.chance import Chance
from kcore.client import channel, kinds
from kcore.client.channel import Channel
from kcore.client.kubeconfig import Target
from kcore.clock import SystemClock
from kcore.kernel import kernel, schema
from kcore.kernel.store import Store
from kcore.kernel.store.memory import MemoryStore

CONFIG_MAP = "kcore.core.v1.ConfigMap"
POD = "kcore.core.v1.Pod"
NODE = "kcore.core.v1.Node"
NAMESPACE = "kcore.core.v1.Namespace"
POOL = "kcore.core.v1.Pool"
SECRET = "kcore.core.v1.Secret"


@functools.cache
def compiled() -> schema.Schema:
    return schema.compile_schema(kinds.built_in_bytes(), proven=True)


@dataclass
class World:
    """What a test has."""

    apiserver: Apiserver
    kernel: kernel.Kernel
    channel: Channel
    socket: Path
    ports: list[int]

    def session(self, user: User = ADMIN) -> Session:
        return self.apiserver.session(user)


@asynccontextmanager
async def world(
    directory: Path, listeners: Listeners | None = None, store: Store | None = None
) -> AsyncIterator[World]:
    """A served kernel with the namespace "default" and addresses for nodes."""
    clock, chance = SystemClock(), Chance(1)
    socket = directory / "kcore.sock"
    listeners = listeners or Listeners(socket=socket)
    store = store or MemoryStore(chance)
    async with (
        kernel.opened(
            store, compiled(), admission.BY_KIND, clock, chance, leaving=admission.ON_DELETE
        ) as made,
        serving(made, listeners, clock, chance) as (apiserver, server),
        channel.connect(Target(unix=str(socket))) as dialled,
    ):
        there = World(apiserver, made, dialled, socket, server.ports)
        namespace = namespace_pb2.Namespace()
        namespace.metadata.name = "default"
        await there.session().commit(create(NAMESPACE, namespace))
        pool = pool_pb2.Pool(spec=pool_pb2.PoolSpec(cidr="10.244.0.0/16", block_size=24))
        pool.metadata.name = "pod-cidrs"
        await there.session().commit(create(POOL, pool))
        yield there


def create(kind: str, *objects: object) -> pb.CommitRequest:
    """One transaction that makes all of them."""
    request = pb.CommitRequest(want=pb.WANT_OBJECTS)
    transaction = request.transactions.add()
    for one in objects:
        transaction.operations.add(
            ref=pb.Ref(kind=kind),
            create=one.SerializeToString(),  # type: ignore[attr-defined]
        )
    return request


def config_map(name: str, **data: str) -> config_map_pb2.ConfigMap:
    made = config_map_pb2.ConfigMap(data=data)
    made.metadata.name, made.metadata.namespace = name, "default"
    return made


def node(name: str) -> node_pb2.Node:
    made = node_pb2.Node()
    made.metadata.name = name
    return made


def pod(name: str, on: str = "", *containers: str) -> pod_pb2.Pod:
    made = pod_pb2.Pod()
    made.metadata.name, made.metadata.namespace = name, "default"
    for container in containers or ("main",):
        made.spec.containers.add(name=container, image="busybox")
    if on:
        made.spec.node_name = on
    return made


def ref(kind: str, name: str, namespace: str = "default") -> pb.Ref:
    return pb.Ref(kind=kind, namespace=namespace, name=name)


async def soon(what: object, seconds: float = 5.0) -> object:
    """The value of an awaitable that must not take long."""
    async with asyncio.timeout(seconds):
        return await what  # type: ignore[misc]


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(seconds):
        # It is about what other tasks do, of which nobody tells.
        while not holds():
            await asyncio.sleep(0.001)
