"""Disruption budgets: what may go, of which pods, and what an eviction leaves."""

from typing import Any

import pytest
from kcore_api.kcore.apps.v1 import replica_set_pb2
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2

from kcore.controllers import disruption, replicaset
from tests.controllers import plant
from tests.controllers.world import World, parse

Budget = pod_disruption_budget_pb2.PodDisruptionBudget
ReplicaSet = replica_set_pb2.ReplicaSet
Pod = pod_pb2.Pod


def world(replicas: int = 4, ready: int | None = None) -> World:
    here = World((disruption.CONTROLLER, replicaset.CONTROLLER))
    here.add(
        parse(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "main", "image": "w:1"}]},
                    },
                },
            }
        )
    )
    here.settle()
    for each in here.all(Pod)[: replicas if ready is None else ready]:
        plant.make_ready(here, each)
    return here


def budget(**spec: Any) -> Budget:
    made = parse(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}} | spec,
        }
    )
    assert isinstance(made, Budget)
    return made


def status(here: World) -> pod_disruption_budget_pb2.PodDisruptionBudgetStatus:
    here.settle()
    found: pod_disruption_budget_pb2.PodDisruptionBudgetStatus = here.get(
        Budget, "default", "web"
    ).status
    return found


@pytest.mark.parametrize(
    ("spec", "ready", "allowed", "desired"),
    [
        ({"minAvailable": 3}, 4, 1, 3),
        ({"minAvailable": 3}, 2, 0, 3),
        ({"minAvailable": "50%"}, 4, 2, 2),
        ({"minAvailable": "51%"}, 4, 1, 3),
        ({"maxUnavailable": 1}, 4, 1, 3),
        ({"maxUnavailable": 1}, 3, 0, 3),
        ({"maxUnavailable": "30%"}, 4, 2, 2),
        ({"maxUnavailable": 0}, 4, 0, 4),
        ({}, 4, 4, 0),
    ],
)
def test_how_many_may_go(spec: dict[str, Any], ready: int, allowed: int, desired: int) -> None:
    here = world(ready=ready)
    here.add(budget(**spec))
    found = status(here)
    assert (found.disruptions_allowed, found.desired_healthy) == (allowed, desired)
    assert (found.current_healthy, found.expected_pods) == (ready, 4)
    (said,) = found.conditions
    assert said.status == ("True" if allowed else "False")


def test_without_a_selector_it_covers_nothing_with_an_empty_one_all() -> None:
    here = world()
    one = budget(minAvailable=1)
    one.spec.ClearField("selector")
    here.add(one)
    assert status(here).expected_pods == 0
    one = here.get(Budget, "default", "web")
    one.spec.selector.SetInParent()
    here.change(one)
    assert status(here).expected_pods == 4


def test_a_size_that_changes_is_seen() -> None:
    here = world()
    here.add(budget(maxUnavailable=1))
    assert status(here).disruptions_allowed == 1
    one = here.get(ReplicaSet, "default", "web")
    one.spec.replicas = 6
    here.change(one)
    assert status(here).desired_healthy == 5 and status(here).disruptions_allowed == 0


def test_what_was_taken_counts_as_gone_until_it_is_or_is_forgotten() -> None:
    here = world()
    here.add(budget(minAvailable=2))
    assert status(here).disruptions_allowed == 2
    taken = here.all(Pod)[0].metadata.name
    one = here.get(Budget, "default", "web")
    one.status.disruptions_allowed = 1
    one.status.disrupted_pods[taken].seconds = int(here.now)
    here.change(one)
    found = status(here)
    assert found.current_healthy == 3 and list(found.disrupted_pods) == [taken]
    here.now += 121
    found = status(here)
    assert found.current_healthy == 4 and not found.disrupted_pods
