"""The Node: what it says, and that it keeps saying so, over the real kernel in virtual time."""

import dataclasses
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import affinity_pb2, event_pb2, node_pb2
from kcore_api.runtime.v1 import api_pb2 as cri_pb2

from kcore.chance import Chance
from kcore.kubelet import cri, machine, node
from kcore.kubelet.machine import Machine
from kcore.reconcile import transaction
from kcore.reconcile.recorder import Recorder
from kcore.sim import loop as virtual
from kcore.sim.runtime import Runtime as SimRuntime
from tests.kubelet.world import World, world

Node = node_pb2.Node
Lease = lease_pb2.Lease
MACHINE = Machine(
    addresses=("192.0.2.7",), cpus=4, memory=8 << 30, memory_available=7 << 30, boot_id="b1"
)
SETTINGS = node.Settings("n1", Path("/"), labels={"zone": "a"})


class Runtime(SimRuntime):
    """A runtime that can be down, or without network."""

    down = False
    network = True

    async def version(self) -> cri_pb2.VersionResponse:
        if self.down:
            raise cri.CriError(cri.Code.UNAVAILABLE, "connection refused", "Version")
        return cri_pb2.VersionResponse(runtime_name="containerd", runtime_version="1.6.20")

    async def status(self) -> cri_pb2.StatusResponse:
        found = cri_pb2.StatusResponse()
        found.status.conditions.add(type="RuntimeReady", status=True)
        network = found.status.conditions.add(type="NetworkReady", status=self.network)
        if not self.network:
            network.reason = "NetworkPluginNotReady"
            network.message = "cni plugin not initialized"
        return found


@dataclasses.dataclass
class Kubelet:
    """One that runs."""

    world: World
    runtime: Runtime
    machine: Machine = MACHINE

    def start(self, settings: node.Settings = SETTINGS, recorder: Recorder | None = None) -> Any:
        here = self.world
        return here.tasks.start(
            node.run(
                here.api,  # type: ignore[arg-type]
                self.runtime,
                settings,
                here.clock,
                here.chance.fork("node"),
                look=lambda root: self.machine,
                recorder=recorder,
            )
        )

    async def node(self) -> Node | None:
        return await self.world.get(Node, "n1")

    async def lease(self) -> Lease | None:
        return await self.world.get(Lease, "n1", "kube-node-lease")

    async def until_ready(self, wanted: bool = True, seconds: float = 60) -> Node:
        async def is_so() -> Node | None:
            found = await self.node()
            return found if found is not None and node.is_ready(found.status) is wanted else None

        found: Node = await self.world.until(is_so, seconds)
        return found


def play(scene: Callable[[Kubelet], Coroutine[Any, Any, None]]) -> None:
    """Plays a scene around a kubelet that has not been started."""

    async def main() -> None:
        async with world() as here:
            await scene(Kubelet(here, Runtime(here.clock, Chance(1))))

    virtual.run(main())


def condition(of: Node, type_: str) -> node_pb2.NodeCondition:
    return next(one for one in of.status.conditions if one.type == type_)


def test_a_node_says_what_it_is() -> None:
    async def scene(here: Kubelet) -> None:
        taint = affinity_pb2.Taint(key="dedicated", value="x", effect="NoSchedule")
        here.start(dataclasses.replace(SETTINGS, taints=(taint,)))
        found = await here.until_ready()
        assert dict(found.metadata.labels) == {
            "kubernetes.io/hostname": "n1",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "zone": "a",
        }
        assert list(found.spec.taints) == [taint]
        assert found.spec.pod_cidr.endswith(".0/24")
        assert [(one.type, one.address) for one in found.status.addresses] == [
            ("InternalIP", "192.0.2.7"),
            ("Hostname", "n1"),
        ]
        amounts = {name: one.string for name, one in found.status.capacity.items()}
        assert (amounts["cpu"], amounts["memory"], amounts["pods"]) == ("4", "8388608Ki", "110")
        assert found.status.allocatable["memory"].string == "8286208Ki"
        info = found.status.node_info
        assert info.container_runtime_version == "containerd://1.6.20"
        assert info.kubelet_version.startswith("v0.")
        said = {one.type: (one.status, one.reason) for one in found.status.conditions}
        assert said == {
            "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
            "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
            "PIDPressure": ("False", "KubeletHasSufficientPID"),
            "Ready": ("True", "KubeletReady"),
        }

    play(scene)


def test_the_lease_is_renewed_whatever_happens() -> None:
    async def scene(here: Kubelet) -> None:
        here.start()
        live = await here.until_ready()
        found = await here.world.until(here.lease)
        assert found.spec.holder_identity == "n1" and found.spec.lease_duration_seconds == 40
        reference = found.metadata.owner_references[0]
        assert (reference.kind, reference.name, reference.uid) == ("Node", "n1", live.metadata.uid)
        here.runtime.down = True
        for _ in range(10):
            await here.world.clock.sleep(10)
            found = await here.lease()
            assert found is not None
            assert here.world.clock.now() - found.spec.renew_time.seconds <= 11

    play(scene)


def test_a_quiet_node_is_written_every_five_minutes_only() -> None:
    async def scene(here: Kubelet) -> None:
        here.start()
        await here.until_ready()
        await here.world.clock.sleep(20)
        live = await here.node()
        before = here.world.api.commits
        await here.world.clock.sleep(200)
        assert await here.node() == live
        # The lease's.
        assert here.world.api.commits - before <= 22
        await here.world.clock.sleep(120)
        later = await here.node()
        assert later is not None and live is not None
        assert later.metadata.resource_version != live.metadata.resource_version
        beat = condition(later, "Ready")
        assert beat.last_heartbeat_time.seconds > beat.last_transition_time.seconds

    play(scene)


def test_not_ready_says_why_and_recovers() -> None:
    async def scene(here: Kubelet) -> None:
        recorder = Recorder(here.world.api, "kubelet", here.world.clock, Chance(5), "n1")  # type: ignore[arg-type]
        here.world.tasks.start(recorder.run())
        here.runtime.network = False
        here.start(recorder=recorder)
        found = await here.until_ready(False)
        assert condition(found, "Ready").reason == "KubeletNotReady"
        assert condition(found, "Ready").message == (
            "container runtime network not ready: NetworkReady=false "
            "reason:NetworkPluginNotReady message:cni plugin not initialized"
        )
        here.runtime.network = True
        began = here.world.clock.monotonic()
        ready = await here.until_ready()
        assert here.world.clock.monotonic() - began < 0.5
        here.runtime.down = True
        down = await here.until_ready(False, seconds=10)
        assert "container runtime is down: connection refused" in condition(down, "Ready").message
        assert down.status.node_info == ready.status.node_info
        here.runtime.down = False
        await here.until_ready(seconds=1)
        await here.world.clock.sleep(2)
        selection = pb.Selection(kind=event_pb2.Event.DESCRIPTOR.full_name)
        listed = await here.world.admin.list(pb.ListRequest(selection=selection))
        events = [event_pb2.Event.FromString(body) for body in listed.items]
        assert sorted((one.reason, one.count) for one in events) == [
            ("NodeNotReady", 1),
            ("NodeReady", 2),
            ("Starting", 1),
        ]

    play(scene)


def test_a_runtime_that_is_restarted_is_not_noticed() -> None:
    async def scene(here: Kubelet) -> None:
        here.start()
        await here.until_ready()
        await here.world.clock.sleep(15)
        live = await here.node()
        here.runtime.down = True
        await here.world.clock.sleep(node.PATIENCE_SECONDS / 2)
        here.runtime.down = False
        await here.world.clock.sleep(15)
        assert await here.node() == live

    play(scene)


def test_what_others_set_stays() -> None:
    async def scene(here: Kubelet) -> None:
        kubelet = here.start()
        live = await here.until_ready()
        kubelet.cancel()
        other = Node()
        other.CopyFrom(live)
        other.metadata.labels["theirs"] = "yes"
        other.metadata.labels["zone"] = "wrong"
        other.spec.taints.add(key="theirs", effect="NoExecute")
        other.spec.unschedulable = True
        paths = ["metadata.labels", "spec.taints", "spec.unschedulable"]
        await here.world.do(transaction.patch(live, other, paths))
        other.status.capacity["example.com/gpu"].string = "2"
        other.status.conditions.add(type="Theirs", status="True")
        condition(other, "Ready").status = "Unknown"
        await here.world.do(transaction.status(live, other.status))
        here.machine = dataclasses.replace(MACHINE, addresses=("192.0.2.8",), boot_id="b2")
        here.start()
        found = await here.until_ready()
        assert found.metadata.labels["theirs"] == "yes" and found.metadata.labels["zone"] == "a"
        assert found.metadata.uid == live.metadata.uid
        assert [one.key for one in found.spec.taints] == ["theirs"] and found.spec.unschedulable
        assert found.status.capacity["example.com/gpu"].string == "2"
        assert condition(found, "Theirs").status == "True"
        assert found.status.addresses[0].address == "192.0.2.8"
        assert found.status.node_info.boot_id == "b2"

    play(scene)


def test_a_node_that_was_believed_lost_says_that_it_is_not() -> None:
    async def scene(here: Kubelet) -> None:
        here.start()
        live = await here.until_ready()
        condition(live, "Ready").status = "Unknown"
        await here.world.do(transaction.status(live, live.status))
        await here.until_ready(seconds=13)

    play(scene)


def test_a_node_that_is_deleted_comes_back() -> None:
    async def scene(here: Kubelet) -> None:
        here.start()
        live = await here.until_ready()
        lease = await here.world.until(here.lease)
        await here.world.do(transaction.delete(live), transaction.delete(lease))
        found = await here.until_ready(seconds=15)
        assert found.metadata.uid != live.metadata.uid

        async def owned() -> bool:
            lease = await here.lease()
            owners = lease.metadata.owner_references if lease is not None else ()
            return any(one.uid == found.metadata.uid for one in owners)

        await here.world.until(owned)

    play(scene)


def test_nothing_gives_up_while_the_api_is_down() -> None:
    async def scene(here: Kubelet) -> None:
        here.world.api.down = True
        here.start()
        await here.world.clock.sleep(300)
        here.world.api.down = False
        await here.until_ready(seconds=6)
        await here.world.until(here.lease, 6)

    play(scene)


@pytest.mark.parametrize(
    ("of", "type_", "reason"),
    [
        ({"memory_available": 90 << 20}, "MemoryPressure", "KubeletHasInsufficientMemory"),
        ({"disk_available": 1 << 29}, "DiskPressure", "KubeletHasDiskPressure"),
        ({"inodes_available": 100}, "DiskPressure", "KubeletHasDiskPressure"),
        ({"processes": 4_000_000}, "PIDPressure", "KubeletHasInsufficientPID"),
    ],
)
def test_pressures(of: dict[str, int], type_: str, reason: str) -> None:
    changed = dataclasses.replace(MACHINE, **of)  # type: ignore[arg-type]
    made = node.status(SETTINGS, changed, node.Runtime("x://1"), node_pb2.NodeStatus(), 5.0)
    found = next(one for one in made.conditions if one.type == type_)
    assert (found.status, found.reason) == ("True", reason)
    # Asked again nothing changes: a status is a fixed point.
    assert node.status(SETTINGS, changed, node.Runtime("x://1"), made, 9.0) == made


def test_this_machine(tmp_path: Path) -> None:
    found = machine.look(tmp_path)
    assert found.cpus >= 1 and 0 < found.memory_available <= found.memory
    assert 0 < found.disk_available <= found.disk and found.processes > 0
    assert found.kernel_version and found.boot_id and found.architecture
    assert found.addresses[0].count(".") == 3
