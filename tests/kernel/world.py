"""A kernel in memory with the real kinds, a clock that is set by hand, and short words to it."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Any

import kcore_api
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2, namespace_pb2, pod_pb2

from kcore import admission
from kcore.chance import Chance
from kcore.kernel import kernel, schema
from kcore.kernel.record import Key
from kcore.kernel.store import Store
from kcore.kernel.store.memory import MemoryStore
from kcore.wire.errors import ApiError, Reason

EPOCH = 1_767_225_600.0

CONFIG_MAP = "kcore.core.v1.ConfigMap"
DEPLOYMENT = "kcore.apps.v1.Deployment"
EVENT = "kcore.core.v1.Event"
LEASE = "kcore.coordination.v1.Lease"
NAMESPACE = "kcore.core.v1.Namespace"
NODE = "kcore.core.v1.Node"
POD = "kcore.core.v1.Pod"
POOL = "kcore.core.v1.Pool"
SECRET = "kcore.core.v1.Secret"


@functools.cache
def kinds() -> schema.Schema:
    """The kinds that kcore ships."""
    return schema.compile_schema(kcore_api.KINDS.read_bytes(), proven=True)


class HandClock:
    """A clock that moves when it is told to; nobody who sleeps wakes before."""

    def __init__(self, now: float = EPOCH) -> None:
        self.at = now

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        if not seconds:
            await asyncio.sleep(0)
        else:
            await asyncio.get_running_loop().create_future()


class World:
    """A kernel, and one who writes to it."""

    def __init__(self, opened: kernel.Kernel, clock: HandClock) -> None:
        self.kernel = opened
        self.clock = clock

    @property
    def head(self) -> int:
        return self.kernel.head

    async def run(self, *operations: pb.Operation, actor: str = "me", **more: Any) -> Any:
        """One transaction; its result."""
        dry_run = more.pop("dry_run", False)
        transaction = pb.Transaction(operations=operations, **more)
        request = pb.CommitRequest(
            transactions=[transaction], want=pb.WANT_OBJECTS, dry_run=dry_run
        )
        return (await self.kernel.commit(request, actor)).results[0]

    async def create(self, kind: str, message: Any, **more: Any) -> Any:
        """The object as it was created."""
        return self._one(kind, await self.run(create(kind, message), **more))

    async def update(self, kind: str, message: Any, through: str = "", **more: Any) -> Any:
        """The object as it was stored."""
        return self._one(kind, await self.run(update(kind, message, through), **more))

    async def apply(self, kind: str, message: Any, force: bool = False, **more: Any) -> Any:
        """The object as it was stored."""
        return self._one(kind, await self.run(apply(kind, message, force), **more))

    async def delete(self, kind: str, name: str, namespace: str = "default", **more: Any) -> Any:
        """The object as it was."""
        wish = {
            one: more.pop(one)
            for one in ("grace_seconds", "propagation", "uid", "revision")
            if one in more
        }
        operation = delete(kind, name, namespace, **wish)
        return self._one(kind, await self.run(operation, **more))

    def get(self, kind: str, name: str, namespace: str = "default") -> Any:
        """The object; ApiError NOT_FOUND where there is none."""
        named = ref(kind, name, namespace)
        found = self.kernel.shown(Key(named.kind, named.namespace, named.name))
        if found is None:
            raise ApiError(Reason.NOT_FOUND, f"{kind} {name} not found")
        return self.kernel.schema.kind(kind).parse(found.body)

    def there(self, kind: str, name: str, namespace: str = "default") -> bool:
        """Whether there is such an object."""
        try:
            self.get(kind, name, namespace)
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return False
        return True

    def _one(self, kind: str, result: Any) -> Any:
        return self.kernel.schema.kind(kind).parse(result.operations[0].object)


@contextlib.asynccontextmanager
async def world(
    store: Store | None = None, seed: int = 1, clock: HandClock | None = None
) -> AsyncIterator[World]:
    """A world with the namespace `default`."""
    clock = clock or HandClock()
    chance = Chance(seed)
    store = store or MemoryStore(Chance(seed + 1))
    async with kernel.opened(
        store, kinds(), admission.BY_KIND, clock, chance, leaving=admission.ON_DELETE
    ) as opened:
        made = World(opened, clock)
        if not made.there(NAMESPACE, "default"):
            await made.create(NAMESPACE, namespace("default"))
        yield made


def ref(kind: str, name: str, namespace: str = "default") -> pb.Ref:
    """Names an object; cluster-scoped kinds have no namespace."""
    known = kinds().kinds.get(kind)
    namespaced = known is None or known.namespaced
    return pb.Ref(kind=kind, name=name, namespace=namespace if namespaced else "")


def create(kind: str, message: Any) -> pb.Operation:
    return pb.Operation(ref=pb.Ref(kind=kind), create=message.SerializeToString())


def update(kind: str, message: Any, through: str = "") -> pb.Operation:
    body = message.SerializeToString()
    return pb.Operation(ref=pb.Ref(kind=kind), subresource=through, update=body)


def apply(kind: str, message: Any, force: bool = False) -> pb.Operation:
    wish = pb.Apply(object=message.SerializeToString(), force=force)
    return pb.Operation(ref=pb.Ref(kind=kind), apply=wish)


def delete(kind: str, name: str, namespace: str = "default", **wish: Any) -> pb.Operation:
    return pb.Operation(ref=ref(kind, name, namespace), delete=pb.Delete(**wish))


def namespace(name: str) -> Any:
    return namespace_pb2.Namespace(metadata={"name": name})


def config_map(name: str, namespace: str = "default", **data: str) -> Any:
    metadata = {"name": name, "namespace": namespace}
    return config_map_pb2.ConfigMap(metadata=metadata, data=data)


def pod(name: str, namespace: str = "default", **spec: Any) -> Any:
    made = pod_pb2.Pod(metadata={"name": name, "namespace": namespace}, spec=spec)
    if not made.spec.containers:
        made.spec.containers.add(name="c", image="kcore.local/busybox:1")
    return made


class refused:
    """`with refused(reason, words)`: an ApiError of this reason, with these words in it."""

    def __init__(self, reason: Reason, said: str) -> None:
        self.reason, self.said = reason, said
        self.error: ApiError | None = None

    def __enter__(self) -> "refused":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        assert isinstance(error, ApiError), f"no ApiError but {error!r}"
        assert error.reason is self.reason, error
        assert self.said in error.message, error.message
        self.error = error
        return True
