"""The pod's condition PodScheduled, which the scheduler writes and nobody else does. Pure."""

from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

TYPE = "PodScheduled"
UNSCHEDULABLE = "Unschedulable"
GATED = "SchedulingGated"


def bound(pod: pod_pb2.Pod, now: float) -> list[pod_pb2.PodCondition]:
    """The pod's conditions once it has a node."""
    return _with(pod, now, pod_pb2.PodCondition(type=TYPE, status="True"))


def refused(
    pod: pod_pb2.Pod, reason: str, message: str, now: float
) -> list[pod_pb2.PodCondition] | None:
    """The pod's conditions while it has none; None: they say so already."""
    fresh = pod_pb2.PodCondition(type=TYPE, status="False", reason=reason, message=message)
    old = current(pod)
    if old is not None and (old.status, old.reason, old.message) == ("False", reason, message):
        return None
    return _with(pod, now, fresh)


def current(pod: pod_pb2.Pod) -> pod_pb2.PodCondition | None:
    """The condition as it is."""
    return next((found for found in pod.status.conditions if found.type == TYPE), None)


def _with(pod: pod_pb2.Pod, now: float, fresh: pod_pb2.PodCondition) -> list[pod_pb2.PodCondition]:
    old = current(pod)
    if old is not None and old.status == fresh.status and old.HasField("last_transition_time"):
        fresh.last_transition_time.CopyFrom(old.last_transition_time)
    else:
        fresh.last_transition_time.CopyFrom(meta_pb2.Time(seconds=int(now)))
    if old is None:
        return [*pod.status.conditions, fresh]
    return [fresh if found is old else found for found in pod.status.conditions]
