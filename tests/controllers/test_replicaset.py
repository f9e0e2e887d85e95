"""ReplicaSets: adoption, release, whom they create and whom they delete first."""

import itertools
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kcore.controllers import garbage, replicaset
from kcore.wire.errors import ApiError, Reason
from tests.controllers import plant
from tests.controllers.plant import Pod, ReplicaSet
from tests.controllers.world import World, parse


def world() -> World:
    """A world with replica sets and nothing above them."""
    return World((replicaset.CONTROLLER, garbage.CONTROLLER))


def replica_set(name: str = "web", replicas: int = 3, **spec: Any) -> ReplicaSet:
    """A ReplicaSet as the server would store it."""
    made = parse(
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name, "tier": "front"}},
                    "spec": {"containers": [{"name": "main", "image": "web:1"}]},
                },
            }
            | spec,
        }
    )
    assert isinstance(made, ReplicaSet)
    return made


def bare_pod(name: str, app: str = "web") -> Pod:
    """A pod that nobody manages."""
    made = Pod()
    made.metadata.name = name
    made.metadata.namespace = "default"
    made.metadata.labels["app"] = app
    return made


def test_it_adopts_what_matches_and_deletes_the_surplus() -> None:
    here = world()
    for index in range(5):
        here.add(bare_pod(f"bare-{index}"))
    here.add(bare_pod("stranger", app="other"))
    here.add(replica_set(replicas=3))
    here.settle()
    assert len(plant.alive(here)) == 4
    ours = [each for each in plant.alive(here) if each.metadata.owner_references]
    assert len(ours) == 3
    assert all(each.metadata.owner_references[0].controller for each in ours)
    status = here.get(ReplicaSet, "default", "web").status
    assert (status.replicas, status.fully_labeled_replicas) == (3, 0)
    assert sum("SuccessfulDelete Deleted pod: bare-" in line for line in here.said) == 2


def test_a_bare_pod_that_comes_later_is_surplus() -> None:
    here = world()
    here.add(replica_set(replicas=1))
    here.settle()
    plant.run_pods(here)
    here.settle()
    here.add(bare_pod("late"))
    here.settle()
    (left,) = plant.alive(here)
    assert left.metadata.name != "late"


def test_it_lets_go_of_a_pod_whose_labels_stop_matching_and_replaces_it() -> None:
    here = world()
    here.add(replica_set(replicas=2))
    here.settle()
    each = here.all(Pod)[0]
    each.metadata.labels["app"] = "debug"
    here.change(each)
    here.settle()
    assert not here.get(Pod, "default", each.metadata.name).metadata.owner_references
    assert len(plant.alive(here)) == 3


def test_it_adopts_nothing_while_it_goes() -> None:
    here = world()
    one = replica_set(replicas=1)
    one.metadata.finalizers.append("example.com/wait")
    here.add(one)
    here.settle()
    here.delete(here.get(ReplicaSet, "default", "web"))
    here.settle()
    here.add(bare_pod("bare"))
    here.settle()
    assert not here.get(Pod, "default", "bare").metadata.owner_references


def test_pods_that_are_over_do_not_count() -> None:
    here = world()
    here.add(replica_set(replicas=2))
    here.settle()
    for each, phase in zip(here.all(Pod), ("Failed", "Succeeded"), strict=True):
        each.status.phase = phase
        here.change(each)
    here.settle()
    assert len(plant.alive(here)) == 2
    assert len(here.all(Pod)) == 4


def test_pods_are_the_template_with_a_derived_name_and_an_owner() -> None:
    here = world()
    here.add(replica_set(replicas=1))
    here.settle()
    (each,) = here.all(Pod)
    assert each.metadata.name.startswith("web-")
    assert len(each.metadata.name) == len("web-") + 5
    assert each.metadata.generate_name == "web-"
    assert dict(each.metadata.labels) == {"app": "web", "tier": "front"}
    (owner,) = each.metadata.owner_references
    assert (owner.api_version, owner.kind, owner.name) == ("apps/v1", "ReplicaSet", "web")
    assert owner.controller and owner.block_owner_deletion
    assert each.spec.containers[0].image == "web:1"


def test_nothing_is_created_for_a_size_that_has_changed() -> None:
    here = world()
    here.add(replica_set(replicas=3))
    result = here.ask(0, ("default", "web"))
    live = here.get(ReplicaSet, "default", "web")
    live.spec.replicas = 1
    here.change(live)
    here.carry_out(result, 0, ("default", "web"))
    assert not here.all(Pod)
    here.settle()
    assert len(plant.alive(here)) == 1


def test_a_failure_is_a_condition_until_it_is_over() -> None:
    here = world()
    here.add(replica_set(replicas=1))
    key = ("default", "web")
    refused = ApiError(Reason.FORBIDDEN, "pods are not welcome")
    here.step()
    here.delete(here.all(Pod)[0])
    here._outcomes[0][key] = (refused,)
    result = here.ask(0, key)
    here.carry_out(result, 0, key)
    (said,) = here.get(ReplicaSet, "default", "web").status.conditions
    assert (said.type, said.status, said.reason) == ("ReplicaFailure", "True", "FailedCreate")
    assert said.message == "pods are not welcome"
    here.settle()
    assert not here.get(ReplicaSet, "default", "web").status.conditions


def test_without_a_selector_it_does_nothing() -> None:
    here = world()
    one = replica_set()
    one.spec.selector.Clear()
    here.add(one)
    here.settle()
    assert not here.all(Pod)


# Ranks.


def candidate(**said: Any) -> Pod:
    """A pod that runs well, but for what is said."""
    made = bare_pod(said.get("name", "pod"))
    made.metadata.uid = said.get("name", "pod")
    made.metadata.creation_timestamp.seconds = said.get("created", 1000)
    made.spec.node_name = said.get("node", "n1")
    made.status.phase = said.get("phase", "Running")
    if "cost" in said:
        made.metadata.annotations[replicaset.POD_DELETION_COST] = said["cost"]
    if said.get("ready", True):
        ready = made.status.conditions.add(type="Ready", status="True")
        ready.last_transition_time.seconds = said.get("since", 1000)
    made.status.container_statuses.add(name="main", restart_count=said.get("restarts", 0))
    return made


# Each goes before the next one: Kubernetes' order.
LADDER = [
    candidate(name="unassigned", node="", phase="Pending", ready=False),
    candidate(name="pending", phase="Pending", ready=False),
    candidate(name="unknown", phase="Unknown", ready=False),
    candidate(name="unready", ready=False),
    candidate(name="cheap", cost="-5"),
    candidate(name="crowded", node="n2"),
    candidate(name="ready-lately", since=2000),
    candidate(name="restarted", restarts=3),
    candidate(name="young", created=1500),
    candidate(name="plain"),
    candidate(name="dear", cost="10"),
]


@given(st.permutations(LADDER))
def test_whom_is_missed_least_goes_first(pods: list[Pod]) -> None:
    found = replicaset.ranked(pods, Counter({"n1": 4, "n2": 9}))
    assert [each.metadata.name for each in found] == [each.metadata.name for each in LADDER]


def test_each_rung_stands_by_itself() -> None:
    for lower, higher in itertools.pairwise(LADDER):
        found = replicaset.ranked([higher, lower], Counter({"n1": 4, "n2": 9}))
        assert found == [lower, higher]


def test_siblings_are_counted_over_all_sets_of_one_owner() -> None:
    here = plant.world()
    here.add(plant.deploy(replicas=4))
    plant.finish(here)
    plant.set_image(here, "web:2")
    here.settle()
    plant.run_pods(here, 1)
    here.settle()
    live = here.all(ReplicaSet)[0]
    found = replicaset.siblings(here.view, live)
    assert found["n1"] == sum(bool(each.spec.node_name) for each in plant.alive(here))
