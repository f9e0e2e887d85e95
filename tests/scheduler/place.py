"""A kernel and a scheduler in one process, in virtual time."""

from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import event_pb2, namespace_pb2, node_pb2, pod_pb2, pool_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore import admission
from kcore.apiserver import identity
from kcore.apiserver.session import Session
from kcore.chance import Chance
from kcore.client import kinds
from kcore.clock import LoopClock
from kcore.kernel import kernel as kernels
from kcore.kernel import schema
from kcore.kernel.store.memory import MemoryStore
from kcore.reconcile import transaction
from kcore.scheduler import run as scheduler
from kcore.sim import loop
from kcore.tasks import Tasks
from kcore.wire.api import Api

Pod = pod_pb2.Pod
Node = node_pb2.Node

_SCHEMA = schema.compile_schema(kinds.built_in_bytes(), proven=True)
_SCHEDULER = identity.User("system:kube-scheduler", (identity.AUTHENTICATED,))


class Place:
    """What a test sees and does."""

    def __init__(self, kernel: kernels.Kernel) -> None:
        self.api = Session(kernel, identity.ADMIN)
        self.scheduler_api: Api = Session(kernel, _SCHEDULER)
        self.clock = LoopClock()
        self.kernel = kernel

    async def commit(self, *wanted: pb.Transaction) -> None:
        for one in wanted:
            await self.api.commit(pb.CommitRequest(transactions=[one]))

    async def create(self, *objects: Message) -> None:
        for one in objects:
            await self.commit(transaction.create(one))
            if isinstance(one, Node):
                # Made without its status, as everything is.
                live = await self.node(one.metadata.name)
                await self.commit(transaction.status(live, one.status))

    async def pod(self, name: str, namespace: str = "default") -> Pod:
        return await self._get(Pod, namespace, name)

    async def node(self, name: str) -> Node:
        return await self._get(Node, "", name)

    async def _get(self, kind, namespace: str, name: str):  # type: ignore[no-untyped-def]
        ref = pb.Ref(kind=kind.DESCRIPTOR.full_name, namespace=namespace, name=name)
        return kind.FromString((await self.api.get(pb.GetRequest(ref=ref))).object)

    async def events(self) -> Sequence[event_pb2.Event]:
        selection = pb.Selection(kind=event_pb2.Event.DESCRIPTOR.full_name)
        answer = await self.api.list(pb.ListRequest(selection=selection))
        return [event_pb2.Event.FromString(item) for item in answer.items]

    async def where(self, *names: str) -> list[str]:
        return [(await self.pod(name)).spec.node_name for name in names]

    async def settle(self, seconds: float = 1.0) -> None:
        await self.clock.sleep(seconds)


def scheduled(
    work: Callable[[Place], Awaitable[None]], wrap: Callable[[Api], Api] = lambda api: api
) -> None:
    """Runs `work` beside a scheduler, whose Api is `wrap`ped."""

    async def main() -> None:
        clock, chance = LoopClock(), Chance(1)
        store = MemoryStore(chance.fork("store"))
        async with kernels.opened(
            store, _SCHEMA, admission.BY_KIND, clock, chance.fork("kernel")
        ) as kernel:
            place = Place(kernel)
            await place.create(
                namespace_pb2.Namespace(metadata=meta_pb2.ObjectMeta(name="default")),
                pool_pb2.Pool(
                    metadata=meta_pb2.ObjectMeta(name="pod-cidrs"),
                    spec=pool_pb2.PoolSpec(cidr="10.244.0.0/16", block_size=24),
                ),
            )
            async with Tasks() as tasks:
                api = wrap(place.scheduler_api)
                tasks.start(scheduler.run(api, clock, chance.fork("scheduler")), "scheduler")
                await work(place)
                tasks.cancel()

    loop.run(main())
