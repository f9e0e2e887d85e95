"""Mirrors of static pods, over the real kernel with a kubelet's permissions, in virtual time."""

import dataclasses
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import namespace_pb2, node_pb2, pod_pb2

from kcore.kubelet import mirror, static_pod
from kcore.reconcile import transaction
from kcore.sim import loop as virtual
from tests.kubelet.world import World, world

Pod = pod_pb2.Pod


def static(name: str = "web", namespace: str = "", image: str = "x:1") -> pod_pb2.Pod:
    wrote = Pod()
    wrote.metadata.name = name
    wrote.metadata.namespace = namespace
    wrote.metadata.labels["app"] = name
    wrote.spec.containers.add(name="main", image=image).ports.add(container_port=80)
    wrote.spec.host_network = True
    made, problems = static_pod.make(wrote, "n1", f"{name}.yaml")
    assert not problems
    return made


@dataclass
class Kubelet:
    """What is wanted, and what was last seen of the API."""

    world: World
    static: dict[str, pod_pb2.Pod] | None = None
    live: dict[str, pod_pb2.Pod] | None = None
    node: node_pb2.Node = dataclasses.field(default_factory=node_pb2.Node)

    async def start(self) -> None:
        here = self.world
        await self.register()
        here.tasks.start(self.look())
        here.tasks.start(
            mirror.run(
                here.api,  # type: ignore[arg-type]
                "n1",
                lambda: self.static,
                lambda: self.live,
                here.clock,
                here.chance.fork("mirror"),
            )
        )

    async def register(self) -> None:
        node = node_pb2.Node()
        node.metadata.name = "n1"
        await self.world.do(transaction.create(node))
        found = await self.world.get(node_pb2.Node, "n1")
        assert found is not None
        self.node = found

    async def look(self) -> None:
        """A watch, and a slow one."""
        while True:
            await self.world.clock.sleep(0.8)
            self.live = {
                one.metadata.annotations[static_pod.MIRROR]: one for one in await self.pods()
            }

    def want(self, *pods: pod_pb2.Pod) -> None:
        self.static = {one.metadata.uid: one for one in pods}

    async def pods(self) -> list[pod_pb2.Pod]:
        request = pb.ListRequest(selection=pb.Selection(kind=Pod.DESCRIPTOR.full_name))
        return [Pod.FromString(body) for body in (await self.world.admin.list(request)).items]

    async def mirrors(self) -> list[str]:
        return [one.metadata.annotations[static_pod.MIRROR] for one in await self.pods()]

    async def until(self, *wanted: pod_pb2.Pod, seconds: float = 10) -> list[pod_pb2.Pod]:
        uids = sorted(one.metadata.uid for one in wanted)

        async def so() -> bool:
            return sorted(await self.mirrors()) == uids

        await self.world.until(so, seconds)
        return await self.pods()


def play(scene: Callable[[Kubelet], Coroutine[Any, Any, None]]) -> None:
    """A scene around a kubelet that has been started."""

    async def main() -> None:
        async with world() as here:
            kubelet = Kubelet(here)
            await kubelet.start()
            await scene(kubelet)

    virtual.run(main())


def test_a_static_pod_is_shown() -> None:
    async def scene(here: Kubelet) -> None:
        pod = static()
        here.want(pod)
        (found,) = await here.until(pod)
        meta = found.metadata
        assert (meta.namespace, meta.name) == ("default", "web-n1")
        assert meta.uid != pod.metadata.uid
        assert meta.annotations["kubernetes.io/config.source"] == "file"
        assert meta.annotations["kubernetes.io/config.hash"] == pod.metadata.uid
        (owner,) = meta.owner_references
        assert (owner.kind, owner.uid, owner.controller) == ("Node", here.node.metadata.uid, True)
        assert found.spec.node_name == "n1" and not found.spec.service_account_name
        # What the kubelet fills in is what the API would have.
        for name in (
            "containers",
            "restart_policy",
            "dns_policy",
            "termination_grace_period_seconds",
        ):
            assert getattr(found.spec, name) == getattr(pod.spec, name), name

    play(scene)


def test_quiet_when_all_is_well() -> None:
    async def scene(here: Kubelet) -> None:
        pod = static()
        here.want(pod)
        await here.until(pod)
        await here.world.clock.sleep(2)
        before = here.world.api.commits
        await here.world.clock.sleep(60)
        assert here.world.api.commits == before

    play(scene)


def test_deleted_mirrors_come_back() -> None:
    async def scene(here: Kubelet) -> None:
        pod = static()
        here.want(pod)
        (first,) = await here.until(pod)
        # With grace, as people do: nobody else would let it go.
        await here.world.do(transaction.delete(first))

        async def again() -> bool:
            pods = await here.pods()
            return [one.metadata.uid != first.metadata.uid for one in pods] == [True]

        await here.world.until(again)

    play(scene)


def test_changed_and_gone_files() -> None:
    async def scene(here: Kubelet) -> None:
        one, other = static("one"), static("other")
        here.want(one, other)
        await here.until(one, other)
        changed = static("one", image="x:2")
        here.want(changed, other)
        await here.until(changed, other)
        here.want()
        await here.until()

    play(scene)


def test_nothing_is_deleted_before_the_files_were_read() -> None:
    async def scene(here: Kubelet) -> None:
        pod = static()
        here.want(pod)
        await here.until(pod)
        here.static = None
        await here.world.clock.sleep(10)
        assert await here.mirrors() == [pod.metadata.uid]

    play(scene)


def test_a_namespace_that_comes_later() -> None:
    async def scene(here: Kubelet) -> None:
        late, soon = static("late", "extra"), static("soon")
        here.want(late, soon)
        await here.until(soon)
        await here.world.clock.sleep(5)
        before = here.world.api.commits
        await here.world.clock.sleep(50)
        assert here.world.api.commits - before <= 6
        namespace = namespace_pb2.Namespace()
        namespace.metadata.name = "extra"
        await here.world.do(transaction.create(namespace))
        await here.until(late, soon, seconds=12)

    play(scene)


def test_an_api_that_is_down() -> None:
    async def scene(here: Kubelet) -> None:
        here.world.api.down = True
        pod = static()
        here.want(pod)
        await here.world.clock.sleep(30)
        assert await here.mirrors() == []
        here.world.api.down = False
        await here.until(pod, seconds=4)

    play(scene)


def test_the_plan_is_empty_once_it_was_followed() -> None:
    node = node_pb2.Node()
    node.metadata.name, node.metadata.uid = "n1", "u"
    pod = static()
    wanted = {pod.metadata.uid: pod}
    (create,) = mirror.plan(wanted, {}, node)
    made = Pod.FromString(create.operations[0].create)
    made.metadata.uid = "m"
    assert mirror.plan(wanted, {pod.metadata.uid: made}, node) == []
    assert mirror.plan(wanted, {}, None) == []
    # Of another life of the node: the owner is gone.
    node.metadata.uid = "v"
    assert len(mirror.plan(wanted, {pod.metadata.uid: made}, node)) == 2
