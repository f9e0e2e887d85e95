"""DaemonSets: which nodes, one pod each, templates node by node; what holds whatever happens."""

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from kcore_api.kcore.apps.v1 import controller_revision_pb2, daemon_set_pb2
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.controllers import daemonset, garbage, pod
from tests.controllers import plant
from tests.controllers.world import World, parse

DaemonSet = daemon_set_pb2.DaemonSet
ControllerRevision = controller_revision_pb2.ControllerRevision
Node = node_pb2.Node
Pod = pod_pb2.Pod


def world(*nodes: str) -> World:
    here = World((daemonset.CONTROLLER, garbage.CONTROLLER))
    for name in nodes:
        here.add(node(name))
    return here


def node(name: str, **spec: Any) -> Node:
    made = parse(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": spec,
        }
    )
    assert isinstance(made, Node)
    return made


def daemon_set(image: str = "agent:1", strategy: Any = None, **pod_spec: Any) -> DaemonSet:
    made = parse(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {
                    "metadata": {"labels": {"app": "agent"}},
                    "spec": {"containers": [{"name": "main", "image": image}], **pod_spec},
                },
                "updateStrategy": strategy
                or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            },
        }
    )
    assert isinstance(made, DaemonSet)
    return made


def meant_for(each: Pod) -> str:
    return each.spec.node_name or daemonset._meant_for(each)


def where(here: World) -> dict[str, str]:
    """Node -> image, of pods that count."""
    return {meant_for(each): each.spec.containers[0].image for each in plant.alive(here)}


def run(here: World, most: int | None = None) -> None:
    for _ in range(200):
        here.now += 1
        moved = here.step()
        moved += kubelets(here, most)
        if not moved and not here.step():
            return
    raise AssertionError("never ends; last: " + "\n".join(here.log[-30:]))


def kubelets(here: World, most: int | None = None) -> int:
    """Binds pods to the nodes that they name, makes them ready, ends those that are to go."""
    done = 0
    for each in here.all(Pod):
        if most is not None and done >= most:
            break
        if each.metadata.HasField("deletion_timestamp"):
            here.confirm(each)
            done += 1
        elif pod.ready_since(each) is None and pod.is_active(each):
            plant.make_ready(here, each, meant_for(each))
            done += 1
    return done


def set_image(here: World, image: str) -> None:
    one = here.get(DaemonSet, "default", "agent")
    one.spec.template.spec.containers[0].image = image
    here.change(one)


def status(here: World) -> daemon_set_pb2.DaemonSetStatus:
    found: daemon_set_pb2.DaemonSetStatus = here.get(DaemonSet, "default", "agent").status
    return found


def test_every_node_gets_one() -> None:
    here = world("n1", "n2")
    here.add(daemon_set())
    run(here)
    assert where(here) == {"n1": "agent:1", "n2": "agent:1"}
    assert (status(here).desired_number_scheduled, status(here).number_available) == (2, 2)
    here.add(node("n3"))
    run(here)
    assert set(where(here)) == {"n1", "n2", "n3"}


def test_a_pod_names_its_node_and_tolerates_what_daemons_do() -> None:
    here = world("n1")
    here.add(daemon_set(hostNetwork=True))
    here.settle()
    (one,) = here.all(Pod)
    required = one.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    (term,) = required.node_selector_terms
    (said,) = term.match_fields
    assert (said.key, said.operator, list(said.values)) == ("metadata.name", "In", ["n1"])
    tolerated = {(each.key, each.operator, each.effect) for each in one.spec.tolerations}
    word = "node.kubernetes.io/"
    assert tolerated == {
        (word + "not-ready", "Exists", "NoExecute"),
        (word + "unreachable", "Exists", "NoExecute"),
        (word + "disk-pressure", "Exists", "NoSchedule"),
        (word + "memory-pressure", "Exists", "NoSchedule"),
        (word + "pid-pressure", "Exists", "NoSchedule"),
        (word + "unschedulable", "Exists", "NoSchedule"),
        (word + "network-unavailable", "Exists", "NoSchedule"),
    }
    (revision,) = here.all(ControllerRevision)
    assert revision.metadata.name == f"agent-{one.metadata.labels['controller-revision-hash']}"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"n1"}),
        ({"unschedulable": True}, {"n1"}),
        ({"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, {"n1"}),
        ({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]},
         set()),
        ({"taints": [{"key": "soft", "effect": "PreferNoSchedule"}]}, {"n1"}),
    ],
)  # fmt: skip
def test_which_nodes_it_is_for(spec: dict[str, Any], expected: set[str]) -> None:
    here = world()
    here.add(node("n1", **spec))
    here.add(daemon_set())
    run(here)
    assert set(where(here)) == expected


def test_labels_of_nodes_bring_and_take_pods() -> None:
    here = world("n1", "n2")
    here.add(daemon_set(nodeSelector={"disk": "fast"}))
    run(here)
    assert not where(here)
    one = here.get(Node, "", "n1")
    one.metadata.labels["disk"] = "fast"
    here.change(one)
    run(here)
    assert set(where(here)) == {"n1"}
    one = here.get(Node, "", "n1")
    one.metadata.labels["disk"] = "slow"
    here.change(one)
    run(here)
    assert not where(here) and not here.all(Pod)


@pytest.mark.parametrize(("effect", "stays"), [("NoSchedule", True), ("NoExecute", False)])
def test_a_taint_that_comes_later(effect: str, stays: bool) -> None:
    here = world("n1")
    here.add(daemon_set())
    run(here)
    one = here.get(Node, "", "n1")
    one.spec.taints.add(key="busy", effect=effect)
    here.change(one)
    run(here)
    assert bool(where(here)) is stays
    assert status(here).number_misscheduled == stays


def test_a_failed_pod_is_made_anew() -> None:
    here = world("n1")
    here.add(daemon_set())
    run(here)
    (one,) = here.all(Pod)
    one.status.phase = "Failed"
    here.change(one)
    run(here)
    (again,) = here.all(Pod)
    assert again.metadata.uid != one.metadata.uid
    assert set(where(here)) == {"n1"}


def test_a_template_goes_node_by_node() -> None:
    here = world("n1", "n2", "n3")
    here.add(daemon_set())
    run(here)
    set_image(here, "agent:2")
    for _ in range(60):
        here.now += 1
        here.step()
        serving = {meant_for(e) for e in plant.alive(here) if pod.ready_since(e) is not None}
        assert len(serving) >= 2
        kubelets(here, 1)
    assert set(where(here).values()) == {"agent:2"}
    assert status(here).updated_number_scheduled == 3


def test_with_surge_the_new_one_comes_first() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    here = world("n1", "n2", "n3")
    here.add(daemon_set(strategy=rolling))
    run(here)
    set_image(here, "agent:2")
    for _ in range(60):
        here.now += 1
        here.step()
        alive = plant.alive(here)
        serving = {meant_for(each) for each in alive if pod.ready_since(each) is not None}
        assert len(serving) == 3 and len(alive) <= 4
        kubelets(here, 1)
    assert where(here) == dict.fromkeys(("n1", "n2", "n3"), "agent:2")


def test_with_surge_the_next_one_waits_for_a_third_to_go() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    here = world("n1")
    here.add(daemon_set(strategy=rolling))
    run(here)
    (first,) = here.all(Pod)
    set_image(here, "agent:2")
    here.settle()
    (second,) = [each for each in here.all(Pod) if each.metadata.uid != first.metadata.uid]
    second.spec.node_name = "n1"
    here.change(second)
    # Neither is of the template now: one of them goes, and has not gone yet.
    set_image(here, "agent:3")
    here.settle()
    there = sorted(here.all(Pod), key=lambda each: each.spec.containers[0].image)
    assert [each.spec.containers[0].image for each in there] == ["agent:1", "agent:2"]
    assert [each.metadata.HasField("deletion_timestamp") for each in there] == [False, True]


def test_on_delete_waits_for_somebody_to_delete() -> None:
    here = world("n1", "n2")
    here.add(daemon_set(strategy={"type": "OnDelete"}))
    run(here)
    set_image(here, "agent:2")
    run(here)
    assert set(where(here).values()) == {"agent:1"}
    here.delete(next(each for each in here.all(Pod) if meant_for(each) == "n1"))
    run(here)
    assert where(here) == {"n1": "agent:2", "n2": "agent:1"}


def test_percent_of_nodes_rounds_up() -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "30%", "maxSurge": 0}}
    here = world("n1", "n2", "n3", "n4")
    here.add(daemon_set(strategy=rolling))
    run(here)
    set_image(here, "agent:2")
    here.settle()
    assert len(plant.alive(here)) == 2


def test_two_pods_on_a_node_become_one() -> None:
    here = world("n1")
    here.add(daemon_set())
    run(here)
    (one,) = here.all(Pod)
    double = Pod()
    double.CopyFrom(one)
    double.metadata.name, double.metadata.uid = "agent-extra", "other"
    double.metadata.creation_timestamp.seconds += 60
    here.add(double)
    run(here)
    assert [each.metadata.name for each in here.all(Pod)] == [one.metadata.name]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["image", "kubelet", "fail", "delete", "node", "cordon", "gone"]),
            st.integers(0, 4),
        ),
        max_size=25,
    ),
    st.booleans(),
)
@settings(max_examples=60)
def test_never_two_on_a_node_and_all_ends_well(story: list[tuple[str, int]], surge: bool) -> None:
    rolling = {"maxUnavailable": 0, "maxSurge": 1} if surge else {"maxUnavailable": 1}
    here = world("n0", "n1", "n2")
    here.add(daemon_set(strategy={"type": "RollingUpdate", "rollingUpdate": rolling}))
    for what, number in story:
        here.now += 1
        there = here.all(Pod)
        one = there[number % len(there)] if there else None
        name = f"n{number}"
        nodes = {each.metadata.name: each for each in here.all(Node)}
        if what == "image":
            set_image(here, f"agent:{number}")
        elif what == "kubelet":
            kubelets(here, number)
        elif what == "fail" and one is not None:
            one.status.phase = "Failed"
            here.change(one)
        elif what == "delete" and one is not None:
            here.delete(one)
        elif what == "node" and name not in nodes:
            here.add(node(name))
        elif what == "cordon" and name in nodes:
            nodes[name].spec.unschedulable = not nodes[name].spec.unschedulable
            here.change(nodes[name])
        elif what == "gone" and name in nodes:
            here.delete(nodes[name])
        here.step()
        there = [each for each in here.all(Pod) if each.status.phase not in pod.OVER]
        counts = Counter(meant_for(each) for each in there)
        # One, and with surge one that comes before the other goes.
        assert all(count <= 1 + surge for count in counts.values()), counts
    run(here)
    image = here.get(DaemonSet, "default", "agent").spec.template.spec.containers[0].image
    assert where(here) == {each.metadata.name: image for each in here.all(Node)}
    assert not here.ask(0, ("default", "agent")).transactions
