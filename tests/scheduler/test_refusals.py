"""What people read when a pod fits nowhere."""

from collections.abc import Callable

import pytest
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2, pod_spec_pb2

from kcore.chance import Chance
from kcore.scheduler import condition, demand, model, node, plan
from kcore.scheduler.fit import Want
from kcore.scheduler.model import Key
from tests.scheduler import worlds


def _refusal(pod: pod_pb2.Pod, *nodes: node_pb2.Node) -> plan.Refusal:
    world = model.Model()
    for each in nodes:
        world.set_node(node.of(each))
    (decision,) = plan.plan(world, [(pod, demand.of(pod))], Chance(1))
    assert decision.refusal is not None
    return decision.refusal


def _tainted(name: str, key: str, value: str = "") -> node_pb2.Node:
    found = worlds.node(name)
    found.spec.taints.add(key=key, value=value, effect="NoSchedule")
    return found


def _labelled(name: str, **labels: str) -> node_pb2.Node:
    found = worlds.node(name)
    found.metadata.labels.update(labels)
    return found


def _with(change: Callable[[pod_spec_pb2.PodSpec], object]) -> pod_pb2.Pod:
    found = worlds.pod("web", "1", "1Gi")
    change(found.spec)
    return found


def test_each_reason_with_the_number_of_its_nodes() -> None:
    pod = _with(lambda spec: spec.node_selector.update({"disk": "ssd"}))
    small = _labelled("n1", disk="ssd")
    small.status.allocatable["cpu"].string = "500m"
    refusal = _refusal(pod, small, _tainted("n2", "k", "v"), worlds.node("n3"))
    assert refusal.message == (
        "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {k: v}, "
        "1 node(s) didn't match Pod's node affinity/selector."
    )
    assert refusal.wants == {Want.ROOM, Want.TOLERANCE, Want.LABELS}


def test_one_node_may_lack_several_things() -> None:
    tiny = worlds.node("n1", cpu="100m", memory="1Mi", pods="0")
    assert _refusal(worlds.pod("web", "1", "1Gi"), tiny).message == (
        "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods."
    )


def test_no_nodes() -> None:
    refusal = _refusal(worlds.pod("web"))
    assert refusal.message == "no nodes available to schedule pods"
    assert refusal.wants == set(Want)


def test_a_cordoned_node() -> None:
    cordoned = worlds.node("n1")
    cordoned.spec.unschedulable = True
    assert _refusal(worlds.pod("web"), cordoned).message == (
        "0/1 nodes are available: 1 node(s) were unschedulable."
    )


def test_the_control_plane_taint() -> None:
    master = _tainted("n1", "node-role.kubernetes.io/control-plane")
    assert _refusal(worlds.pod("web"), master).message == (
        "0/1 nodes are available: 1 node(s) had untolerated taint "
        "{node-role.kubernetes.io/control-plane: }."
    )


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (("TCP", "0.0.0.0"), ("TCP", "10.0.0.1"), True),
        (("TCP", ""), ("TCP", ""), True),
        (("TCP", "10.0.0.1"), ("TCP", "10.0.0.2"), False),
        (("TCP", ""), ("UDP", ""), False),
    ],
)
def test_host_ports_clash_by_protocol_and_address(
    mine: tuple[str, str], theirs: tuple[str, str], clash: bool
) -> None:
    def pod(name: str, protocol: str, address: str) -> pod_pb2.Pod:
        found = worlds.pod(name)
        port = found.spec.containers[0].ports.add(container_port=80, host_port=80)
        port.protocol, port.host_ip = protocol, address
        return found

    world = model.Model()
    world.set_node(node.of(worlds.node("n1")))
    sitting, coming = demand.of(pod("a", *theirs)), demand.of(pod("b", *mine))
    world.place(Key("default", "a"), "n1", sitting)
    (decision,) = plan.plan(world, [("b", coming)], Chance(1))
    if clash:
        assert decision.refusal is not None
        assert decision.refusal.message == (
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        )
    else:
        assert decision.node == "n1"
    # In one plan, too.
    world.remove(Key("default", "a"))
    both = plan.plan(world, [("a", sitting), ("b", coming)], Chance(1))
    assert (both[1].refusal is not None) is clash


def test_a_condition_keeps_the_moment_it_turned_and_the_conditions_of_others() -> None:
    pod = worlds.pod("web")
    pod.status.conditions.add(type="example.com/ready", status="True")
    first = condition.refused(pod, condition.UNSCHEDULABLE, "a", 100.0)
    assert first is not None
    pod.status.conditions.clear()
    pod.status.conditions.extend(first)
    assert condition.refused(pod, condition.UNSCHEDULABLE, "a", 200.0) is None
    second = condition.refused(pod, condition.UNSCHEDULABLE, "b", 200.0)
    assert second is not None
    assert [c.type for c in second] == ["example.com/ready", "PodScheduled"]
    assert second[1].last_transition_time.seconds == 100
    bound = condition.bound(pod, 300.0)
    assert (bound[1].status, bound[1].last_transition_time.seconds) == ("True", 300)
    assert (bound[1].reason, bound[1].message) == ("", "")
