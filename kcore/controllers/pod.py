"""What controllers ask of a pod: does it still count, is it ready, since when.

Pods are counted by their status, which their kubelet writes: condition Ready. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from kcore.reconcile import transaction
from kcore.reconcile.view import View

OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is asked of every pod of a set again and again; see `View.fact`."""

    active: bool
    ready_since: float | None

    def is_available(self, min_ready_seconds: int, now: float) -> bool:
        """Whether it has been ready for so long."""
        since = self.ready_since
        # Without a least time, clocks that differ must not matter.
        return since is not None and (min_ready_seconds <= 0 or since + min_ready_seconds <= now)


def facts(pod: pod_pb2.Pod) -> Facts:
    """Read off once for each version of a pod."""
    return Facts(is_active(pod), ready_since(pod))


def is_active(pod: pod_pb2.Pod) -> bool:
    """Whether it runs or may run: neither over nor on its way out."""
    return pod.status.phase not in OVER and not pod.metadata.HasField("deletion_timestamp")


def condition(pod: pod_pb2.Pod, type_: str) -> pod_pb2.PodCondition | None:
    """Its condition of this type, if it has one."""
    for found in pod.status.conditions:
        if found.type == type_:
            return found
    return None


def doomed(pod: pod_pb2.Pod, reason: str, message: str, now: float) -> pod_pb2.Pod:
    """A pod that says, in its conditions alone, why somebody is about to take it away."""
    fresh = pod_pb2.Pod()
    fresh.status.conditions.extend(pod.status.conditions)
    found = condition(fresh, "DisruptionTarget")
    if found is None:
        found = fresh.status.conditions.add(type="DisruptionTarget")
    if found.status != "True":
        found.status = "True"
        found.last_transition_time.seconds = int(now)
    found.reason, found.message = reason, message
    return fresh


def ready_since(pod: pod_pb2.Pod) -> float | None:
    """Since when it is ready, in seconds since 1970; None: it is not."""
    found = condition(pod, "Ready")
    if found is None or found.status != "True":
        return None
    return float(found.last_transition_time.seconds)


def restarts(pod: pod_pb2.Pod) -> int:
    """How often the container that restarted most has."""
    return max((each.restart_count for each in pod.status.container_statuses), default=0)


def node(pod: pod_pb2.Pod) -> Iterable[str]:
    """Index: pods by their node's name."""
    if pod.spec.node_name:
        yield pod.spec.node_name


def next_available(
    view: View, pods: Iterable[pod_pb2.Pod], min_ready_seconds: int, now: float
) -> float | None:
    """When the next of them will have been ready for so long."""
    if not min_ready_seconds:
        return None
    since = (view.fact(facts, each).ready_since for each in pods)
    times = (moment + min_ready_seconds for moment in since if moment is not None)
    return min((moment for moment in times if moment > now), default=None)


def still_wanted(live: Any) -> list[pb.Guard]:
    """Guards for what is done to make pods as many as a set asks for: it still asks for so many."""
    target = transaction.ref(live)
    guards = transaction.same(target, live.metadata)
    if live.spec.HasField("replicas"):
        guards.append(transaction.field_is(target, "spec.replicas", live.spec.replicas))
    return guards
