"""A world with a deployment in it, and somebody who runs its pods.

`deploy` makes a Deployment as the server would store it; `run_pods` is the kubelet of one node,
as far as controllers can tell; `watch_bounds` looks at every revision.
"""

from collections.abc import Callable
from typing import Any

from kcore_api.kcore.apps.v1 import deployment_pb2, replica_set_pb2
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.controllers import deployment, garbage, pod, replicaset
from tests.controllers.world import World, parse

Deployment = deployment_pb2.Deployment
ReplicaSet = replica_set_pb2.ReplicaSet
Pod = pod_pb2.Pod

CONTROLLERS = (deployment.CONTROLLER, replicaset.CONTROLLER, garbage.CONTROLLER)


def world() -> World:
    """A world in which deployments work."""
    return World(CONTROLLERS)


def deploy(
    name: str = "web",
    replicas: int = 3,
    image: str = "web:1",
    **spec: Any,
) -> Deployment:
    """A Deployment with defaults filled in; `spec` in JSON names."""
    plain = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
            },
            "revisionHistoryLimit": 10,
            "progressDeadlineSeconds": 600,
        }
        | spec,
    }
    made = parse(plain)
    assert isinstance(made, Deployment)
    return made


def set_image(here: World, image: str, name: str = "web") -> None:
    """What a user does to roll out."""
    live = here.get(Deployment, "default", name)
    live.spec.template.spec.containers[0].image = image
    here.change(live)


def resize(here: World, replicas: int, name: str = "web") -> None:
    """What a user does to scale."""
    live = here.get(Deployment, "default", name)
    live.spec.replicas = replicas
    here.change(live)


def run_pods(
    here: World, most: int | None = None, wanted: Callable[[Pod], bool] = lambda _pod: True
) -> int:
    """Makes pods ready, and ends those that are to go; at most so many."""
    done = 0
    for each in here.all(Pod):
        if most is not None and done >= most:
            break
        if each.metadata.HasField("deletion_timestamp"):
            here.confirm(each)
            done += 1
        elif pod.ready_since(each) is None and pod.is_active(each) and wanted(each):
            make_ready(here, each)
            done += 1
    return done


def make_ready(here: World, each: Pod, node: str = "n1") -> None:
    """Its kubelet says that it serves."""
    each.spec.node_name = each.spec.node_name or node
    each.status.phase = "Running"
    for known in each.status.conditions:
        if known.type == "Ready":
            known.status = "True"
            known.last_transition_time.seconds = int(here.now)
            break
    else:
        ready = each.status.conditions.add(type="Ready", status="True")
        ready.last_transition_time.seconds = int(here.now)
    here.change(each)


def finish(here: World, rounds: int = 400, most: int | None = None) -> None:
    """Until nothing moves, neither controllers nor pods."""
    for _ in range(rounds):
        here.now += 1
        moved = here.step()
        moved += run_pods(here, most)
        if not moved and not here.step():
            return
    raise AssertionError("never ends; last: " + "\n".join(here.log[-30:]))


def sets(here: World) -> dict[str, tuple[int, int, int]]:
    """By image: asked for, there, available."""
    return {
        each.spec.template.spec.containers[0].image: (
            each.spec.replicas,
            each.status.replicas,
            each.status.available_replicas,
        )
        for each in here.all(ReplicaSet)
    }


def alive(here: World) -> list[Pod]:
    """Pods that count."""
    return [each for each in here.all(Pod) if pod.is_active(each)]


def condition(here: World, type_: str, name: str = "web") -> tuple[str, str] | None:
    """Status and reason of a condition of the deployment."""
    for each in here.get(Deployment, "default", name).status.conditions:
        if each.type == type_:
            return each.status, each.reason
    return None
