"""Disruption budgets: how many pods may still be taken away.

Counts, for each budget, how many of its pods should be, have to be and are well, and says in the
status how many may go. Evictions take from that number (admission/eviction); a pod that was taken
and is not on its way yet counts as gone for a while. It must not know who evicts, nor why.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import Message
from kcore_api.kcore.apps.v1 import deployment_pb2, replica_set_pb2, stateful_set_pb2
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2
from kcore_api.kcore.policy.v1 import pod_disruption_budget_pb2

from kcore.controllers import pod, rollout
from kcore.reconcile import owner, transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, itself
from kcore.reconcile.view import View
from kcore.wire import selector
from kcore.wire.errors import ApiError

Budget = pod_disruption_budget_pb2.PodDisruptionBudget
Deployment = deployment_pb2.Deployment
ReplicaSet = replica_set_pb2.ReplicaSet
StatefulSet = stateful_set_pb2.StatefulSet
Pod = pod_pb2.Pod

# An eviction that was allowed and not carried out is forgotten after so long.
_PATIENCE_SECONDS: Final = 120.0
_SETS: Final[Mapping[str, type[Message]]] = {
    kind.DESCRIPTOR.name: kind for kind in (Deployment, ReplicaSet, StatefulSet)
}


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one PodDisruptionBudget."""
    live = view.get(Budget, *key)
    if live is None:
        return NOTHING
    covered = [each for each in _covered(view, live) if each.status.phase not in pod.OVER]
    disrupted = dict(_disrupted(live, covered, now))
    expected, needed = _numbers(view, live, covered)
    healthy = sum(
        view.fact(pod.facts, each).ready_since is not None
        and not each.metadata.HasField("deletion_timestamp")
        and each.metadata.name not in disrupted
        for each in covered
    )
    allowed = max(0, healthy - needed) if expected else 0
    status = pod_disruption_budget_pb2.PodDisruptionBudgetStatus(
        observed_generation=live.metadata.generation,
        disruptions_allowed=allowed,
        current_healthy=healthy,
        desired_healthy=needed,
        expected_pods=expected,
    )
    for name, since in disrupted.items():
        status.disrupted_pods[name].seconds = since
    status.conditions.append(_condition(live, allowed, now))
    again_at = min((since + _PATIENCE_SECONDS for since in disrupted.values()), default=None)
    if status == live.status:
        return Result((), again_at)
    # Not over an eviction that came in between.
    fresh = Budget()
    fresh.status.CopyFrom(status)
    written = transaction.patch(live, fresh, ["status"], unchanged=True, subresource="status")
    return Result((written,), again_at)


def _covered(view: View, live: Budget) -> Sequence[Pod]:
    if not live.spec.HasField("selector"):
        return ()
    try:
        matching = selector.from_message(live.spec.selector)
    except ApiError:
        return ()
    return [
        each
        for each in view.list(Pod, live.metadata.namespace)
        if matching.matches(view.fact(_labels, each))
    ]


def _labels(each: Pod) -> dict[str, str]:
    return dict(each.metadata.labels)


def _disrupted(live: Budget, covered: Iterable[Pod], now: float) -> Iterator[tuple[str, int]]:
    """Pods that were taken and are not on their way yet, and since when."""
    there = {
        each.metadata.name for each in covered if not each.metadata.HasField("deletion_timestamp")
    }
    for name in sorted(live.status.disrupted_pods):
        since = live.status.disrupted_pods[name].seconds
        if name in there and since + _PATIENCE_SECONDS > now:
            yield name, since


def _numbers(view: View, live: Budget, covered: Sequence[Pod]) -> tuple[int, int]:
    """How many pods there should be, and how many of them have to be well."""
    spec = live.spec
    if spec.HasField("max_unavailable"):
        expected = _expected(view, covered)
        away = rollout.part(_amount(spec.max_unavailable), expected, up=True)
        return expected, max(0, expected - away)
    if not spec.HasField("min_available"):
        return len(covered), 0
    amount = _amount(spec.min_available)
    if isinstance(amount, int):
        return len(covered), amount
    expected = _expected(view, covered)
    return expected, rollout.part(amount, expected, up=True)


def _expected(view: View, covered: Sequence[Pod]) -> int:
    """What the sets ask for that own the pods; a pod that nobody owns is one."""
    sizes: dict[str, int] = {}
    for each in covered:
        uid, size = each.metadata.uid, 1
        for found in _owners(view, each.metadata):
            uid = owner.metadata(found).uid
            size = _size(found)
        sizes[uid] = size
    return sum(sizes.values())


def _owners(view: View, meta: meta_pb2.ObjectMeta) -> Iterator[Any]:
    """The set that manages an object, and who manages that."""
    at: meta_pb2.ObjectMeta | None = meta
    while at is not None:
        reference = owner.manager(at)
        kind = _SETS.get(reference.kind) if reference is not None else None
        if reference is None or kind is None:
            return
        found = view.get(kind, at.namespace, reference.name)
        if found is None or owner.metadata(found).uid != reference.uid:
            return
        yield found
        at = owner.metadata(found)


def _size(found: Any) -> int:
    replicas: int = found.spec.replicas if found.spec.HasField("replicas") else 1
    return replicas


def _amount(value: meta_pb2.IntOrString) -> int | str:
    return value.str_val if value.type == 1 else value.int_val


def _condition(live: Budget, allowed: int, now: float) -> meta_pb2.Condition:
    status, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    made = meta_pb2.Condition(
        type="DisruptionAllowed",
        status=status,
        observed_generation=live.metadata.generation,
        reason=reason,
        message="",
        last_transition_time=meta_pb2.Time(seconds=int(now)),
    )
    for known in live.status.conditions:
        if known.type == made.type and known.status == status:
            made.last_transition_time.CopyFrom(known.last_transition_time)
    return made


def _that_cover(view: View, old: Pod | None, new: Pod | None) -> Iterator[Key]:
    """Keys: the budgets that the pod counts for, now or until now."""
    for each in (old, new):
        if each is None:
            continue
        for live in view.list(Budget, each.metadata.namespace):
            if live.spec.HasField("selector") and _matches(live, each):
                yield (live.metadata.namespace, live.metadata.name)


def _matches(live: Budget, each: Pod) -> bool:
    try:
        return selector.from_message(live.spec.selector).matches(dict(each.metadata.labels))
    except ApiError:
        return False


def _of_namespace(view: View, old: Any, new: Any) -> Iterator[Key]:
    """Keys: all budgets of the namespace, when a set changes its size."""
    if old is not None and new is not None and _size(old) == _size(new):
        return
    for live in view.list(Budget, (new or old).metadata.namespace):
        yield (live.metadata.namespace, live.metadata.name)


CONTROLLER = Controller(
    name="disruption-controller",
    reads={
        Budget: itself,
        Pod: _that_cover,
        Deployment: _of_namespace,
        ReplicaSet: _of_namespace,
        StatefulSet: _of_namespace,
    },
    writes=(f"{Budget.DESCRIPTOR.full_name}/status",),
    reconcile=reconcile,
)
