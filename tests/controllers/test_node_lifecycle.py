"""Nodes that fall silent and come back, and pods that are driven out; what holds whatever happens.

Time is the world's; `skew` is what the controllers' wall clock is wrong by.
"""

from typing import Any

import hypothesis.strategies as st
from hypothesis import given
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import affinity_pb2, node_pb2, pod_pb2

from kcore.controllers import node_lifecycle, pod, taint_eviction
from kcore.controllers.node_lifecycle import NOT_READY, UNREACHABLE
from kcore.wire.placement import NO_EXECUTE, NO_SCHEDULE
from tests.controllers.world import World, parse

Lease = lease_pb2.Lease
Node = node_pb2.Node
Pod = pod_pb2.Pod

SPACE = node_lifecycle.LEASE_NAMESPACE
CONTROLLERS = (node_lifecycle.CONTROLLER, taint_eviction.CONTROLLER)


def node(name: str, zone: str = "") -> Node:
    made = Node()
    made.metadata.name = name
    if zone:
        made.metadata.labels["topology.kubernetes.io/zone"] = zone
    made.status.conditions.add(type="Ready", status="True", reason="KubeletReady")
    return made


def world(*nodes: str | Node) -> World:
    here = World(CONTROLLERS)
    for each in nodes:
        made = node(each) if isinstance(each, str) else each
        here.add(made)
        lease = Lease()
        lease.metadata.namespace, lease.metadata.name = SPACE, made.metadata.name
        here.add(lease)
    here.settle()
    return here


def answer(here: World, name: str, clock: float = 0.0) -> None:
    """What a kubelet does now and then; its clock is wrong by so much."""
    lease = here.get(Lease, SPACE, name)
    lease.spec.renew_time.seconds = int(here.now + clock)
    lease.spec.renew_time.nanos = here.revision
    here.change(lease)
    live = here.get(Node, "", name)
    (ready,) = (each for each in live.status.conditions if each.type == "Ready")
    if ready.status != "True":
        ready.status = "True"
        ready.last_heartbeat_time.seconds = int(here.now + clock)
        here.change(live)


def wait(here: World, seconds: float, *answering: str) -> None:
    """Time passes, and those answer."""
    while seconds > 0:
        step = min(seconds, 5.0)
        here.now += step
        seconds -= step
        for name in answering:
            answer(here, name)
        here.settle()


def taints(here: World, name: str) -> set[tuple[str, str]]:
    return {(each.key, each.effect) for each in here.get(Node, "", name).spec.taints}


def driven(here: World) -> set[str]:
    """Nodes whose pods have to go."""
    return {
        each.metadata.name
        for each in here.all(Node)
        if any(taint.effect == NO_EXECUTE for taint in each.spec.taints)
    }


def ready(here: World, name: str) -> str:
    return node_lifecycle._status(here.get(Node, "", name), "Ready")


def a_pod(name: str, on: str, seconds: int | None = 300, key: str = "") -> Pod:
    """A pod that bears all taints (or one) for so long; None: none."""
    toleration: dict[str, Any] = {"operator": "Exists", "effect": NO_EXECUTE}
    if key:
        toleration["key"] = key
    toleration["tolerationSeconds"] = seconds
    made = parse(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": on,
                "containers": [{"name": "main", "image": "web:1"}],
                "tolerations": [] if seconds is None else [toleration],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    assert isinstance(made, Pod)
    return made


def goes(here: World, name: str) -> bool:
    live: Pod = here.get(Pod, "default", name)
    return live.metadata.HasField("deletion_timestamp")


def restarted(here: World) -> World:
    """The controllers begin anew; objects stay."""
    fresh = World(CONTROLLERS, now=here.now, skew=here.skew, revision=here.revision)
    for each in list(here.objects.values()):
        fresh.add(each)
    fresh.said = here.said
    fresh.settle()
    return fresh


# One node.


def test_a_silent_node_is_unknown_after_forty_seconds_and_its_pods_go_after_five_minutes() -> None:
    here = world("n1", "n2", "n3")
    here.add(a_pod("a", "n1"))
    wait(here, 35, "n2", "n3")
    assert ready(here, "n1") == "True" and not taints(here, "n1")
    wait(here, 5, "n2", "n3")
    assert ready(here, "n1") == "Unknown"
    assert taints(here, "n1") == {(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)}
    assert pod.ready_since(here.get(Pod, "default", "a")) is None
    wait(here, 295, "n2", "n3")
    assert not goes(here, "a")
    wait(here, 5, "n2", "n3")
    assert goes(here, "a")
    (said,) = [
        c for c in here.get(Pod, "default", "a").status.conditions if c.type == "DisruptionTarget"
    ]
    assert (said.status, said.reason) == ("True", "DeletionByTaintManager")
    assert here.said == [
        "Normal NodeNotReady Node n1 status is now: NodeNotReady",
        "Warning NodeNotReady Node is not ready",
        "Normal TaintManagerEviction Marking for deletion Pod default/a",
    ]


def test_a_node_that_is_back_in_time_loses_nothing() -> None:
    here = world("n1", "n2")
    here.add(a_pod("a", "n1"))
    wait(here, 300, "n2")
    assert driven(here) == {"n1"}
    wait(here, 400, "n1", "n2")
    assert not taints(here, "n1") and not goes(here, "a")
    assert here.said[-1] == "Normal TaintManagerEviction Cancelling deletion of Pod default/a"


def test_a_kubelet_whose_runtime_is_down_is_not_ready_but_knows_its_pods() -> None:
    here = world("n1", "n2")
    here.add(a_pod("a", "n1", 20))
    live = here.get(Node, "", "n1")
    live.status.conditions[0].status = "False"
    here.change(live)
    here.settle()
    assert taints(here, "n1") == {(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)}
    assert pod.ready_since(here.get(Pod, "default", "a")) is not None
    # Its lease goes on, so it is known how it is.
    here.now += 20
    here.settle()
    assert ready(here, "n1") == "False" and goes(here, "a")


def test_cordon_and_uncordon() -> None:
    here = world("n1")
    for closed in (True, False):
        live = here.get(Node, "", "n1")
        live.spec.unschedulable = closed
        here.change(live)
        here.settle()
        expected = {("node.kubernetes.io/unschedulable", NO_SCHEDULE)} if closed else set()
        assert taints(here, "n1") == expected


def test_a_lease_of_a_namesake_is_no_sign() -> None:
    here = world("n1", "n2")
    other = Lease()
    other.metadata.namespace, other.metadata.name = "default", "n1"
    here.add(other)
    for _ in range(8):
        wait(here, 5, "n2")
        other.spec.renew_time.seconds = int(here.now)
        here.change(other)
    assert ready(here, "n1") == "Unknown"


# Many.


def test_pods_are_driven_out_of_one_node_in_ten_seconds() -> None:
    names = [f"n{number}" for number in range(10)]
    here = world(*names)
    well = names[5:]
    wait(here, 40, *well)
    counts = []
    for _ in range(10):
        counts.append(len(driven(here)))
        wait(here, 5, *well)
    assert counts == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_in_a_small_zone_in_trouble_nobody_has_to_go() -> None:
    here = world("n1", "n2", "n3", "n4", "n5")
    wait(here, 200, "n1", "n2")
    assert [ready(here, f"n{n}") for n in (3, 4, 5)] == ["Unknown"] * 3
    assert not driven(here)
    wait(here, 20, "n1", "n2", "n3")
    assert driven(here) == {"n4", "n5"}


def test_in_a_large_zone_in_trouble_it_goes_slowly() -> None:
    names = [f"n{number:02}" for number in range(60)]
    here = world(*names)
    wait(here, 40, *names[40:])
    assert len(driven(here)) == 1
    wait(here, 95, *names[40:])
    assert len(driven(here)) == 1
    wait(here, 5, *names[40:])
    assert len(driven(here)) == 2


def test_where_no_node_answers_nobody_has_to_go() -> None:
    here = world("n1", "n2", "n3")
    here.add(a_pod("a", "n1"))
    wait(here, 100, "n2", "n3")
    assert driven(here) == {"n1"}
    wait(here, 600)
    assert not driven(here) and not goes(here, "a")
    assert all((UNREACHABLE, NO_SCHEDULE) in taints(here, name) for name in ("n1", "n2", "n3"))
    # One is back: then it was them.
    wait(here, 15, "n2")
    assert driven(here) == {"n1", "n3"}


def test_zones_go_by_themselves() -> None:
    here = world(*(node(f"{zone}{number}", zone) for zone in "ab" for number in range(4)))
    wait(here, 100, "b0", "b1", "b2")
    # All of a: more than half of it, so it waits; one of b has to go.
    assert driven(here) == {"b3"}


# Whatever happens.

NAMES = ("n1", "n2", "n3", "n4")
STEPS = st.lists(
    st.tuples(
        st.integers(1, 80),
        st.sets(st.sampled_from(NAMES)),
        st.sampled_from((0.0, 0.0, 3600.0, -3600.0, 315e6, -315e6, 41.0)),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.integers(-4000, 4000))
def test_a_node_that_answers_is_never_unreachable(
    steps: list[tuple[int, set[str], float, bool]], clock: int
) -> None:
    here = world(*NAMES)
    answered = dict.fromkeys(NAMES, here.now)
    for seconds, answering, skew, restarts in steps:
        here.skew = skew
        if restarts:
            here = restarted(here)
        for _ in range(seconds):
            here.now += 1
            for name in sorted(answering):
                if here.now - answered[name] >= 9:
                    answer(here, name, clock)
                    answered[name] = here.now
            here.settle()
            for name in NAMES:
                if here.now - answered[name] < node_lifecycle.GRACE_SECONDS:
                    assert ready(here, name) == "True"
                    assert not {key for key, _ in taints(here, name)}


@given(
    st.lists(
        st.tuples(
            st.integers(1, 50),
            st.sampled_from(("taint", "untaint", "restart", "", "")),
            st.sampled_from((0.0, 0.0, 3600.0, -3600.0, 315e6, -315e6, 61.0)),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 90),
)
def test_nobody_goes_before_his_time_is_up_and_then_he_does(
    steps: list[tuple[int, str, float]], bears: int
) -> None:
    here = world("n1", "n2")
    here.add(
        a_pod("bears", "n1", bears),
        a_pod("other", "n1", 10_000, key="example.com/other"),
        a_pod("elsewhere", "n2", None),
    )
    since: float | None = None
    seen = here.now
    for seconds, what, skew in steps:
        here.skew = skew
        live = here.get(Node, "", "n1")
        if what == "taint" and since is None:
            live.spec.taints.add(key="example.com/broken", effect=NO_EXECUTE)
            here.change(live)
            since = seen = here.now
        elif what == "untaint":
            del live.spec.taints[:]
            here.change(live)
            since = None
        elif what == "restart":
            here = restarted(here)
            seen = here.now
        was = {name for name in ("bears", "other") if goes(here, name)}
        for _ in range(seconds):
            here.settle()
            is_ = {name for name in ("bears", "other") if goes(here, name)}
            if since is None:
                assert is_ == was
            elif "bears" in is_ - was:
                assert here.now - since >= bears
            if since is not None:
                assert "other" in is_
                # A restart begins to count anew; nothing else holds it up.
                assert here.now - seen < bears + 1 or "bears" in is_
            was = is_
            here.now += 1
            for name in ("n1", "n2"):
                answer(here, name)
    assert not goes(here, "elsewhere")


def test_a_pod_that_comes_late_has_its_time_too() -> None:
    here = world("n1")
    live = here.get(Node, "", "n1")
    live.spec.taints.append(affinity_pb2.Taint(key="example.com/broken", effect=NO_EXECUTE))
    here.change(live)
    wait(here, 100, "n1")
    here.add(a_pod("a", "n1", 50))
    wait(here, 45, "n1")
    assert not goes(here, "a")
    wait(here, 5, "n1")
    assert goes(here, "a")
