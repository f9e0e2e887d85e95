"""A deployment's status: its numbers, and the conditions that say how its rollout goes.

Available: enough pods serve. Progressing: something moves, or all is done, or nothing has moved for
progressDeadlineSeconds; then nothing stops, it is only said. ReplicaFailure: as its sets say.
Pure: from the deployment and its sets, as they are seen, to the status.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kcore_api.kcore.apps.v1 import deployment_pb2, replica_set_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import replicaset, rollout

Deployment = deployment_pb2.Deployment
Status = deployment_pb2.DeploymentStatus
Condition = deployment_pb2.DeploymentCondition
ReplicaSet = replica_set_pb2.ReplicaSet

AVAILABLE = "Available"
PROGRESSING = "Progressing"
_DONE = "NewReplicaSetAvailable"
_TIMED_OUT = "ProgressDeadlineExceeded"
_PAUSED = "DeploymentPaused"
_RESUMED = "DeploymentResumed"
_DEFAULT_DEADLINE_SECONDS = 600
# Kubernetes' way to say that there is no deadline.
_NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was seen of a deployment, and what has just been decided."""

    live: Deployment
    new: ReplicaSet | None
    sets: Sequence[ReplicaSet]
    limits: rollout.Bounds
    # Name of the set that is created in this very reconcile.
    created: str = ""
    # The new set was an old one until now.
    reused: bool = False
    # Only the size was looked at: paused, or the size has just changed.
    only_scaled: bool = False
    collisions: int = 0


def deadline(live: Deployment) -> int | None:
    """Seconds in which something has to move; None: no matter."""
    if not live.spec.HasField("progress_deadline_seconds"):
        return _DEFAULT_DEADLINE_SECONDS
    found = live.spec.progress_deadline_seconds
    return None if found == _NO_DEADLINE else found


def status(seen: Rollout, now: float) -> Status:
    """The status as it is to be."""
    live, limits = seen.live, seen.limits
    total = sum(each.status.replicas for each in seen.sets)
    available = sum(each.status.available_replicas for each in seen.sets)
    asked = sum(replicaset.replicas(each) for each in seen.sets)
    found = Status(
        observed_generation=live.metadata.generation or None,
        replicas=total or None,
        updated_replicas=(seen.new.status.replicas if seen.new is not None else 0) or None,
        ready_replicas=sum(each.status.ready_replicas for each in seen.sets) or None,
        available_replicas=available or None,
        unavailable_replicas=max(0, asked - available) or None,
        collision_count=seen.collisions or None,
        conditions=live.status.conditions,
    )
    if available >= limits.least_available:
        words = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        words = (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    _set(found, AVAILABLE, *words, now=now)
    _judge(seen, found, now)
    _copy_failure(seen, found)
    return found


def is_complete(live: Deployment, found: Status, replicas: int) -> bool:
    """Whether every pod is of the new template and serves."""
    return (
        found.updated_replicas == found.replicas == found.available_replicas == replicas
        and found.observed_generation >= live.metadata.generation
    )


def look_again_at(live: Deployment, found: Status, replicas: int) -> float | None:
    """When the deadline will have passed, if nothing moves."""
    seconds, known = deadline(live), condition(found, PROGRESSING)
    if seconds is None or known is None or known.reason in (_TIMED_OUT, _PAUSED):
        return None
    if is_complete(live, found, replicas):
        return None
    return known.last_update_time.seconds + seconds + 1.0


def condition(found: Status, type_: str) -> Condition | None:
    """Its condition of this type, if it has one."""
    for each in found.conditions:
        if each.type == type_:
            return each
    return None


def _judge(seen: Rollout, found: Status, now: float) -> None:
    """Condition Progressing."""
    live = seen.live
    seconds = deadline(live)
    if seconds is None:
        _remove(found, PROGRESSING)
        return
    _turn(seen, found, now)
    if seen.only_scaled:
        return
    known = condition(found, PROGRESSING)
    if known is not None and known.reason == _DONE and found.replicas == found.updated_replicas:
        return
    subject = f'Deployment "{live.metadata.name}"'
    if seen.new is not None:
        subject = f'ReplicaSet "{seen.new.metadata.name}"'
    if is_complete(live, found, seen.limits.replicas):
        _set(found, PROGRESSING, "True", _DONE, f"{subject} has successfully progressed.", now=now)
    elif _moves(live.status, found):
        words = ("True", "ReplicaSetUpdated", f"{subject} is progressing.")
        _set(found, PROGRESSING, *words, now=now, again=True)
    elif (
        known is not None
        and known.reason not in (_DONE, _TIMED_OUT)
        and known.last_update_time.seconds + seconds < now
    ):
        words = ("False", _TIMED_OUT, f"{subject} has timed out progressing.")
        _set(found, PROGRESSING, *words, now=now)


def _turn(seen: Rollout, found: Status, now: float) -> None:
    """What has just begun: a pause, its end, a new set."""
    known = condition(found, PROGRESSING)
    if known is None or known.reason != _TIMED_OUT:
        paused = known is not None and known.reason == _PAUSED
        if seen.live.spec.paused and not paused:
            _set(found, PROGRESSING, "Unknown", _PAUSED, "Deployment is paused", now=now)
        elif paused and not seen.live.spec.paused:
            _set(found, PROGRESSING, "Unknown", _RESUMED, "Deployment is resumed", now=now)
    if seen.created:
        said = f'Created new replica set "{seen.created}"'
        _set(found, PROGRESSING, "True", "NewReplicaSetCreated", said, now=now)
    elif seen.new is not None and (known is None or seen.reused) and not seen.live.spec.paused:
        said = f'Found new replica set "{seen.new.metadata.name}"'
        _set(found, PROGRESSING, "True", "FoundNewReplicaSet", said, now=now)


def _moves(old: Status, new: Status) -> bool:
    return (
        new.updated_replicas > old.updated_replicas
        or new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        or new.ready_replicas > old.ready_replicas
        or new.available_replicas > old.available_replicas
    )


def _copy_failure(seen: Rollout, found: Status) -> None:
    """Condition ReplicaFailure is the new set's, or else any set's."""
    in_order = [*([] if seen.new is None else [seen.new]), *seen.sets]
    for one in in_order:
        for each in one.status.conditions:
            if each.type == replicaset.REPLICA_FAILURE:
                when = each.last_transition_time.seconds
                _set(found, each.type, each.status, each.reason, each.message, now=when)
                return
    _remove(found, replicaset.REPLICA_FAILURE)


def _set(
    found: Status,
    type_: str,
    value: str,
    reason: str,
    message: str,
    *,
    now: float,
    again: bool = False,
) -> None:
    """Says it; with the same status and reason it was said already, unless it is news `again`."""
    moment = meta_pb2.Time(seconds=int(now))
    known = condition(found, type_)
    fresh = Condition(
        type=type_,
        status=value,
        reason=reason,
        message=message,
        last_update_time=moment,
        last_transition_time=moment,
    )
    if known is None:
        found.conditions.append(fresh)
        return
    if known.status == value:
        if known.reason == reason and not again:
            return
        fresh.last_transition_time.CopyFrom(known.last_transition_time)
    known.CopyFrom(fresh)


def _remove(found: Status, type_: str) -> None:
    kept = [each for each in found.conditions if each.type != type_]
    if len(kept) < len(found.conditions):
        del found.conditions[:]
        found.conditions.extend(kept)
