"""A kubelet without containers: says that pods run, and lets go of those that shall not.

It is one controller over a node's pods, so a cluster can be tried before (and without) the real
kubelet. It must not be used where what containers do matters.
"""

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.chance import Chance
from kcore.clock import Clock
from kcore.reconcile import loop, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, itself
from kcore.reconcile.view import View
from kcore.wire.api import Api
from kcore.wire.errors import ApiError, Reason

Pod = pod_pb2.Pod
Node = node_pb2.Node

START_SECONDS = 2.0
STOP_SECONDS = 1.0


def controller(node: str) -> Controller:
    """All that one node does."""

    def reconcile(view: View, key: Key, now: float) -> Result:
        pod = view.get(Pod, *key)
        if pod is None or pod.spec.node_name != node:
            return NOTHING
        if pod.metadata.HasField("deletion_timestamp"):
            asked = pod.metadata.deletion_timestamp.seconds
            ends = asked - pod.metadata.deletion_grace_period_seconds + STOP_SECONDS
            if now < ends:
                return Result(again_at=ends)
            return Result((transaction.delete(pod, grace_seconds=0),))
        if pod.status.phase in ("Running", "Succeeded", "Failed"):
            return NOTHING
        starts = pod.metadata.creation_timestamp.seconds + START_SECONDS
        if now < starts:
            return Result(again_at=starts)
        return Result((transaction.status(pod, _running(pod, now)),))

    return Controller(
        name=f"kubelet-{node}",
        reads={Pod: itself},
        writes=(
            Pod.DESCRIPTOR.full_name,
            f"{Pod.DESCRIPTOR.full_name}/status",
        ),
        reconcile=reconcile,
    )


def _node(name: str) -> Node:
    found = Node(metadata=meta_pb2.ObjectMeta(name=name))
    for resource, text in (("cpu", "3"), ("memory", "8Gi"), ("pods", "110")):
        found.status.capacity[resource].string = text
        found.status.allocatable[resource].string = text
    return found


def _running(pod: Pod, now: float) -> pod_pb2.PodStatus:
    moment = meta_pb2.Time(seconds=int(now))
    status = pod_pb2.PodStatus()
    status.CopyFrom(pod.status)
    status.phase = "Running"
    known = {condition.type for condition in status.conditions}
    for type_ in ("Initialized", "ContainersReady", "Ready"):
        if type_ not in known:
            status.conditions.add(type=type_, status="True", last_transition_time=moment)
    return status


async def _register(api: Api, node: str, clock: Clock) -> None:
    """The node is there, and says what it has."""
    found = _node(node)
    status = transaction.status(found, found.status)
    del status.guards[:]
    for wanted in (transaction.create(found), status):
        while True:
            try:
                await api.commit(pb.CommitRequest(transactions=[wanted]))
            except ApiError as error:
                if error.reason is Reason.UNAVAILABLE:
                    await clock.sleep(1.0)
                    continue
                if error.reason is not Reason.ALREADY_EXISTS:
                    raise
            break


async def run(api: Api, node: str, clock: Clock, chance: Chance) -> None:
    """Runs one node until cancelled."""
    await _register(api, node, clock)
    await loop.run(api, [controller(node)], clock, chance)
