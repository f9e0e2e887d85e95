"""The controllers over the real kernel, in process and in virtual time.

A deployment is written as a user writes it, without defaults; the kernel fills them in, the
controllers make sets and pods, somebody who stands for all kubelets runs them through the Api, as a
kubelet would. What is shown here is that both sides mean the same.
"""

import asyncio
import contextlib
import inspect
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import (
    config_map_pb2,
    event_pb2,
    namespace_pb2,
    node_pb2,
    pod_pb2,
    pool_pb2,
    secret_pb2,
)

from kcore import admission
from kcore.chance import Chance
from kcore.clock import LoopClock
from kcore.controllers import namespace, pod
from kcore.controllers import run as controllers
from kcore.kernel import kernel, schema
from kcore.kernel.record import Record
from kcore.kernel.store.memory import MemoryStore
from kcore.reconcile import transaction
from kcore.sim import loop as virtual
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason
from tests.controllers.plant import Deployment, Pod, ReplicaSet
from tests.controllers.world import parse

KINDS = pathlib.Path(__file__).parents[2] / "generated" / "kinds.binpb"
SCHEMA = schema.compile_schema(KINDS.read_bytes())


class InProcess:
    """The Api of one user of a kernel, without permission."""

    def __init__(self, of: kernel.Kernel, user: str) -> None:
        self._kernel = of
        self._user = user

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        return await here(self._kernel.kinds(request))

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        return pb.GetResponse.FromString(await here(self._kernel.get(request)))

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        return pb.ListResponse.FromString(await here(self._kernel.list(request)))

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        async with contextlib.aclosing(self._kernel.watch(request)) as responses:
            async for response in responses:
                yield pb.WatchResponse.FromString(response)

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        answer = await self._kernel.commit(request, self._user)
        if len(answer.results) == 1 and answer.results[0].HasField("error"):
            raise errors.from_status(answer.results[0].error)
        return answer


async def here(answer: Any) -> Any:
    """An answer, also where it takes a while."""
    return await answer if inspect.isawaitable(answer) else answer


class Shaky:
    """The same, with requests and answers that get lost and streams that break."""

    def __init__(self, api: InProcess, clock: LoopClock, chance: Chance) -> None:
        self._api = api
        self._clock = clock
        self._chance = chance
        self.faults = 0

    def _fails(self, once_in: int) -> bool:
        failed = self._chance.integer(1, once_in) == 1
        self.faults += failed
        return failed

    async def kinds(self, request: pb.KindsRequest) -> pb.KindsResponse:
        return await self._api.kinds(request)

    async def get(self, request: pb.GetRequest) -> pb.GetResponse:
        return await self._api.get(request)

    async def list(self, request: pb.ListRequest) -> pb.ListResponse:
        return await self._api.list(request)

    async def watch(self, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        if request.selections[0].from_revision and self._fails(10):
            raise ApiError(Reason.GONE, "gone")
        async with contextlib.aclosing(self._api.watch(request)) as responses:
            async for response in responses:
                await self._clock.sleep(self._chance.uniform(0, 0.2))
                yield response
                if self._fails(20):
                    raise ApiError(Reason.UNAVAILABLE, "stream broken")

    async def commit(self, request: pb.CommitRequest) -> pb.CommitResponse:
        await self._clock.sleep(self._chance.uniform(0, 0.1))
        if self._fails(6):
            raise ApiError(Reason.UNAVAILABLE, "request lost")
        answer = await self._api.commit(request)
        if self._fails(6):
            raise ApiError(Reason.UNAVAILABLE, "answer lost")
        return answer


class Cluster:
    """A user, and the world as the user sees it."""

    def __init__(self, api: InProcess, clock: LoopClock) -> None:
        self.api = api
        self.clock = clock

    async def commit(self, *transactions: pb.Transaction) -> None:
        for each in transactions:
            await self.api.commit(pb.CommitRequest(transactions=[each]))

    async def apply(self, plain: dict[str, Any]) -> None:
        obj = parse(plain)
        operation = pb.Operation(ref=transaction.ref(obj))
        operation.apply.object = obj.SerializeToString()
        operation.apply.force = True
        await self.commit(pb.Transaction(manager="kcore", operations=[operation]))

    async def list(self, kind: type[Message], space: str = "default") -> list[Any]:
        selection = pb.Selection(kind=kind.DESCRIPTOR.full_name, namespace=space)
        answer = await self.api.list(pb.ListRequest(selection=selection))
        return [kind.FromString(item) for item in answer.items]

    async def get(self, kind: type[Message], name: str, space: str = "default") -> Any:
        ref = pb.Ref(kind=kind.DESCRIPTOR.full_name, namespace=space, name=name)
        answer = await self.api.get(pb.GetRequest(ref=ref))
        return kind.FromString(answer.object)

    async def delete(
        self, obj: Message, propagation: int = pb.PROPAGATION_BACKGROUND, **more: Any
    ) -> None:
        with contextlib.suppress(ApiError):
            await self.commit(transaction.delete(obj, propagation=propagation, **more))  # type: ignore[arg-type]

    async def run_pods(self) -> None:
        """All kubelets, once."""
        for each in await self.list(Pod, ""):
            if each.metadata.HasField("deletion_timestamp"):
                await self.delete(each, grace_seconds=0)
            elif pod.is_active(each) and pod.ready_since(each) is None:
                if not each.spec.node_name:
                    bound = Pod()
                    bound.spec.node_name = "n1"
                    await self.commit(transaction.patch(each, bound, ["spec.nodeName"]))
                status = pod_pb2.PodStatus()
                status.CopyFrom(each.status)
                status.phase = "Running"
                ready = status.conditions.add(type="Ready", status="True")
                ready.last_transition_time.seconds = int(self.clock.now())
                await self.commit(transaction.status(each, status))

    async def until(self, true: Callable[[], Awaitable[bool]], runs: bool = True) -> None:
        start = self.clock.monotonic()
        while not await true():
            await self.clock.sleep(0.05)
            if runs:
                await self.run_pods()
            assert self.clock.monotonic() - start < 600, await self.sets()

    async def sets(self) -> dict[str, tuple[int, int, int]]:
        return {
            each.spec.template.spec.containers[0].image: (
                each.spec.replicas,
                each.status.replicas,
                each.status.available_replicas,
            )
            for each in await self.list(ReplicaSet)
        }


Scene = Callable[[Cluster], Coroutine[Any, Any, None]]


def play(scene: Scene, seed: int = 1, shaky: bool = False) -> MemoryStore:
    """Runs a scene in a cluster that has just been made; its log."""
    found: list[MemoryStore] = []

    async def main() -> None:
        clock, chance = LoopClock(), Chance(seed)
        store = MemoryStore(chance.fork("store"))
        async with kernel.opened(
            store, SCHEMA, admission.BY_KIND, clock, chance.fork("kernel")
        ) as made:
            found.append(store)
            user = Cluster(InProcess(made, "admin"), clock)
            pool = pool_pb2.Pool(spec=pool_pb2.PoolSpec(cidr="10.244.0.0/16", block_size=24))
            pool.metadata.name = "pod-cidrs"
            await user.commit(*namespace.first(), transaction.create(pool))
            node = node_pb2.Node()
            node.metadata.name = "n1"
            await user.commit(transaction.create(node))
            manager: Any = InProcess(made, "system:kube-controller-manager")
            if shaky:
                manager = Shaky(manager, clock, chance.fork("faults"))
            work = asyncio.create_task(
                controllers.run(manager, clock, chance.fork("controllers"), "CA")
            )
            acting = asyncio.create_task(scene(user))
            done, _ = await asyncio.wait([work, acting], return_when=asyncio.FIRST_COMPLETED)
            for task in (work, acting):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert acting in done
            assert not shaky or manager.faults > 5

    virtual.run(main())
    return found[0]


def web(image: str = "web:1", replicas: int | None = 3) -> dict[str, Any]:
    """As in a file."""
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {"name": "main", "image": image, "resources": {"limits": {"cpu": "100m"}}}
                ]
            },
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": spec,
    }


async def roll_out(here: Cluster) -> None:
    await here.apply(web("web:1"))

    async def first() -> bool:
        return await here.sets() == {"web:1": (3, 3, 3)}

    async def second() -> bool:
        return await here.sets() == {"web:1": (0, 0, 0), "web:2": (3, 3, 3)}

    await here.until(first)
    await here.apply(web("web:2"))
    await here.until(second)
    await here.clock.sleep(1)


def test_a_rolling_update_end_to_end() -> None:
    seen: dict[str, Any] = {}

    async def scene(here: Cluster) -> None:
        await roll_out(here)
        seen["web"] = await here.get(Deployment, "web")
        seen["pods"] = await here.list(Pod)
        seen["events"] = await here.list(event_pb2.Event)

    made = play(scene)
    status = seen["web"].status
    assert (status.replicas, status.updated_replicas, status.available_replicas) == (3, 3, 3)
    assert status.observed_generation == seen["web"].metadata.generation == 2
    assert seen["web"].metadata.annotations["deployment.kubernetes.io/revision"] == "2"
    for each in seen["pods"]:
        assert each.spec.service_account_name == "default"
        assert each.status.qos_class == "Burstable"
        assert each.spec.containers[0].resources.requests["cpu"].string == "100m"
        assert [t.toleration_seconds for t in each.spec.tolerations] == [300, 300]
    reasons = {each.reason for each in seen["events"]}
    assert {"ScalingReplicaSet", "SuccessfulCreate", "SuccessfulDelete"} <= reasons
    check_bounds(made)


def records_of(log: MemoryStore) -> list[Record]:
    async def read() -> list[Record]:
        return [record async for record in log.since(0)]

    return asyncio.run(read())


def check_bounds(log: MemoryStore) -> None:
    """Never more than four pods that count, never fewer than three that serve once they did."""
    live: dict[str, pod_pb2.Pod] = {}
    served = False
    for record in records_of(log):
        if record.key.kind != Pod.DESCRIPTOR.full_name:
            continue
        each = Pod.FromString(record.body)
        if record.verb.value == "delete":
            live.pop(record.key.name, None)
        else:
            live[record.key.name] = each
        active = [one for one in live.values() if pod.is_active(one)]
        ready = sum(pod.ready_since(one) is not None for one in active)
        assert len(active) <= 4, record.revision
        served = served or ready == 3
        assert not served or ready >= 3, record.revision


@pytest.mark.parametrize("seed", range(15))
def test_nothing_that_gets_lost_breaks_the_bounds(seed: int) -> None:
    made = play(roll_out, seed=seed, shaky=True)
    check_bounds(made)
    pods = [one for one in records_of(made) if one.key.kind == Pod.DESCRIPTOR.full_name]
    assert sum(one.verb.value == "create" for one in pods) == 6


def test_causes_lead_from_each_pod_back_to_what_the_user_did() -> None:
    made = play(roll_out)
    records = {}
    for record in records_of(made):
        records.setdefault(record.revision, record)
    actors = []
    revision = max(
        record.revision
        for record in records.values()
        if record.key.kind == Pod.DESCRIPTOR.full_name and record.verb.value == "create"
    )
    while revision:
        actors.append((records[revision].manager, records[revision].key.kind.rpartition(".")[2]))
        assert records[revision].because < revision
        revision = records[revision].because
    assert actors[0] == ("replicaset-controller", "Pod")
    assert ("deployment-controller", "ReplicaSet") in actors


def test_same_seed_same_log() -> None:
    def log(made: MemoryStore) -> list[tuple[Any, ...]]:
        return [
            (one.revision, str(one.key), one.verb, one.actor, one.because, one.body)
            for one in records_of(made)
        ]

    assert log(play(roll_out, seed=5)) == log(play(roll_out, seed=5))


def test_every_namespace_is_equipped() -> None:
    async def scene(here: Cluster) -> None:
        async def equipped() -> bool:
            for name in namespace.FIRST:
                found = await here.list(namespace.ServiceAccount, name)
                found += await here.list(config_map_pb2.ConfigMap, name)
                if len(found) != 2:
                    return False
            return True

        await here.until(equipped)
        one = await here.get(namespace_pb2.Namespace, "default", "")
        assert one.metadata.labels["kubernetes.io/metadata.name"] == "default"
        assert one.status.phase == "Active"

    play(scene)


@pytest.mark.parametrize("propagation", [pb.PROPAGATION_BACKGROUND, pb.PROPAGATION_FOREGROUND])
def test_deleting_a_deployment_deletes_all_below_it(propagation: int) -> None:
    async def scene(here: Cluster) -> None:
        await roll_out(here)
        await here.delete(await here.get(Deployment, "web"), propagation)

        async def gone() -> bool:
            return not (
                await here.list(Deployment) or await here.list(ReplicaSet) or await here.list(Pod)
            )

        await here.until(gone)

    play(scene)


def test_orphaned_sets_and_their_pods_live_on_and_are_adopted() -> None:
    async def scene(here: Cluster) -> None:
        await roll_out(here)
        before = {each.metadata.uid for each in await here.list(Pod)}
        await here.delete(await here.get(Deployment, "web"), pb.PROPAGATION_ORPHAN)

        async def gone() -> bool:
            return not await here.list(Deployment)

        await here.until(gone)
        await here.apply(web("web:2"))

        async def adopted() -> bool:
            found = [each for each in await here.list(ReplicaSet) if each.metadata.owner_references]
            return len(found) == 2

        await here.until(adopted)
        await here.clock.sleep(5)
        assert {each.metadata.uid for each in await here.list(Pod)} == before

    play(scene)


def test_a_namespace_goes_with_all_that_is_in_it() -> None:
    async def scene(here: Cluster) -> None:
        room = namespace_pb2.Namespace()
        room.metadata.name = "shop"
        await here.commit(transaction.create(room))
        plain = web()
        plain["metadata"]["namespace"] = "shop"
        await here.apply(plain)

        async def three() -> bool:
            return len(await here.list(Pod, "shop")) == 3

        await here.until(three)
        secret = secret_pb2.Secret(string_data={"key": "text"})
        secret.metadata.name, secret.metadata.namespace = "held", "shop"
        secret.metadata.finalizers.append("example.com/wait")
        await here.commit(transaction.create(secret))
        await here.delete(await here.get(namespace_pb2.Namespace, "shop", ""))

        async def only_one_left() -> bool:
            return not await here.list(Pod, "shop") and not await here.list(Deployment, "shop")

        await here.until(only_one_left)
        await here.clock.sleep(1)
        there = await here.get(namespace_pb2.Namespace, "shop", "")
        assert there.status.phase == "Terminating"
        assert "Secret in 1 objects" in there.status.conditions[0].message
        held = await here.get(secret_pb2.Secret, "held", "shop")
        assert held.data["key"] == b"text"
        with pytest.raises(ApiError) as raised:
            config = config_map_pb2.ConfigMap()
            config.metadata.name, config.metadata.namespace = "late", "shop"
            await here.commit(transaction.create(config))
        assert raised.value.reason is Reason.FORBIDDEN
        freed = secret_pb2.Secret()
        await here.commit(transaction.patch(held, freed, ["metadata.finalizers"]))

        async def gone() -> bool:
            with contextlib.suppress(ApiError):
                await here.get(namespace_pb2.Namespace, "shop", "")
                return False
            return True

        await here.until(gone)

    play(scene)


def test_pods_of_a_deleted_node_are_removed() -> None:
    async def scene(here: Cluster) -> None:
        await roll_out(here)
        await here.clock.sleep(60)
        await here.delete(await here.get(node_pb2.Node, "n1", ""))
        before = {each.metadata.uid for each in await here.list(Pod)}

        async def replaced() -> bool:
            now = {each.metadata.uid for each in await here.list(Pod)}
            return len(now) == 3 and not now & before

        await here.until(replaced, runs=False)

    play(scene)
