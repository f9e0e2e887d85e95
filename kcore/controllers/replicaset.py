"""ReplicaSets: so many pods of one template.

Adopts, releases, creates and deletes pods until as many count as the spec asks for, and says in the
status how many there are. A pod counts until it is over or on its way out. Which pods go first is
`ranked`, a plain sort. Creations and deletions carry a guard on the spec's replicas: when somebody
has changed the number in between, they don't happen, so whoever sets the number can count on it.
It must not know deployments, nor how pods are run.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.apps.v1 import replica_set_pb2
from kcore_api.kcore.core.v1 import pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import adoption, pod
from kcore.reconcile import name, owner, transaction
from kcore.reconcile.controller import (
    NOTHING,
    Controller,
    Key,
    Result,
    Said,
    itself,
)
from kcore.reconcile.view import View
from kcore.wire import selector
from kcore.wire.errors import Reason

ReplicaSet = replica_set_pb2.ReplicaSet
Pod = pod_pb2.Pod

POD_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
REPLICA_FAILURE = "ReplicaFailure"
# Pods of one set that are created or deleted in one round.
_MOST_AT_ONCE = 500

_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one ReplicaSet."""
    live = view.get(ReplicaSet, *key)
    if live is None:
        return NOTHING
    matching = adoption.selects(live.spec.selector)
    if matching is None:
        return NOTHING
    claimed = adoption.claim(view, live, matching, Pod)
    if claimed.transactions:
        # Counted when they are ours, or not any more.
        return Result(claimed.transactions)
    active = [each for each in claimed.children if view.fact(pod.facts, each).active]
    wanted = replicas(live)
    transactions: list[pb.Transaction] = []
    events: list[Said] = []
    if not live.metadata.HasField("deletion_timestamp"):
        if len(active) < wanted:
            for fresh in _fresh(view, live, min(wanted - len(active), _MOST_AT_ONCE)):
                asked = transaction.create(fresh, guards=pod.still_wanted(live))
                transactions.append(asked)
                events += _said(live, "Create", "Creat", fresh.metadata.name, asked)
        elif len(active) > wanted:
            surplus = min(len(active) - wanted, _MOST_AT_ONCE)
            for doomed in ranked(active, siblings(view, live))[:surplus]:
                asked = transaction.delete(doomed, guards=pod.still_wanted(live))
                transactions.append(asked)
                events += _said(live, "Delete", "Delet", doomed.metadata.name, asked)
    status = _status(view, key, live, active, now)
    if status != live.status:
        transactions.append(transaction.status(live, status))
    return Result(
        tuple(transactions),
        pod.next_available(view, active, live.spec.min_ready_seconds, now),
        tuple(events),
    )


def replicas(live: ReplicaSet) -> int:
    """How many pods it asks for."""
    return live.spec.replicas if live.spec.HasField("replicas") else 1


def ranked(pods: Iterable[Pod], per_node: Counter[str]) -> list[Pod]:
    """Those that are missed least first; `per_node` counts pods of the same owner's sets."""

    def rank(each: Pod) -> tuple[object, ...]:
        since = pod.ready_since(each)
        return (
            bool(each.spec.node_name),
            _PHASE_RANK.get(each.status.phase, 0),
            since is not None,
            _deletion_cost(each),
            -per_node[each.spec.node_name] if each.spec.node_name else 0,
            -(since or 0.0),
            -pod.restarts(each),
            -each.metadata.creation_timestamp.seconds,
            each.metadata.uid,
        )

    return sorted(pods, key=rank)


def siblings(view: View, live: ReplicaSet) -> Counter[str]:
    """How many active pods each node has of this set, and of the sets of the same owner."""
    parent = owner.manager(live.metadata)
    sets: Sequence[ReplicaSet] = [live]
    if parent is not None:
        sets = view.list(ReplicaSet, live.metadata.namespace, owner=parent.uid)
    return Counter(
        each.spec.node_name
        for one in sets
        for each in view.list(Pod, live.metadata.namespace, owner=one.metadata.uid)
        if view.fact(pod.facts, each).active and each.spec.node_name
    )


def _deletion_cost(each: Pod) -> int:
    try:
        return int(each.metadata.annotations.get(POD_DELETION_COST, "0"))
    except ValueError:
        return 0


def _fresh(view: View, live: ReplicaSet, count: int) -> list[Pod]:
    """Pods of the template, with names that nobody has."""
    prefix = f"{live.metadata.name}-"
    parent = owner.reference(live)
    # Encoded once: all pods are the same but for their name.
    pattern = Pod(spec=live.spec.template.spec)
    template = live.spec.template.metadata
    pattern.metadata.MergeFrom(
        meta_pb2.ObjectMeta(
            namespace=live.metadata.namespace,
            generate_name=prefix,
            labels=dict(template.labels),
            annotations=dict(template.annotations),
            finalizers=template.finalizers,
            owner_references=[parent],
        )
    )
    found: list[Pod] = []
    ordinal = 0
    while len(found) < count:
        given = name.child(prefix, live.metadata.uid, view.revision, ordinal)
        ordinal += 1
        if view.get(Pod, live.metadata.namespace, given) is not None:
            continue
        fresh = Pod()
        fresh.CopyFrom(pattern)
        fresh.metadata.name = given
        found.append(fresh)
    return found


def _said(
    live: ReplicaSet, done: str, stem: str, of: str, asked: pb.Transaction
) -> tuple[Said, Said]:
    """Both events of one creation or deletion: that it was done, and that it failed."""
    return (
        Said(live, f"Successful{done}", f"{stem}ed pod: {of}", of=asked),
        Said(live, f"Failed{done}", f"Error {stem.lower()}ing: ", "Warning", asked, failed=True),
    )


def _status(
    view: View, key: Key, live: ReplicaSet, active: Sequence[Pod], now: float
) -> replica_set_pb2.ReplicaSetStatus:
    least = live.spec.min_ready_seconds
    template = selector.from_labels(live.spec.template.metadata.labels)
    ready = available = labelled = 0
    for each in active:
        facts = view.fact(pod.facts, each)
        ready += facts.ready_since is not None
        available += facts.is_available(least, now)
        labelled += template.matches(view.fact(_labels, each))
    status = replica_set_pb2.ReplicaSetStatus(
        replicas=len(active),
        fully_labeled_replicas=labelled or None,
        ready_replicas=ready or None,
        available_replicas=available or None,
        observed_generation=live.metadata.generation or None,
    )
    for known in live.status.conditions:
        if known.type != REPLICA_FAILURE:
            status.conditions.append(known)
    failure = _failure(view, key, live, len(active), now)
    if failure is not None:
        status.conditions.append(failure)
    return status


def _failure(
    view: View, key: Key, live: ReplicaSet, active: int, now: float
) -> replica_set_pb2.ReplicaSetCondition | None:
    """Condition ReplicaFailure, where the last attempt failed and the number is still not right."""
    wanted = replicas(live)
    errors = [error for error in view.last(key) if error.reason is not Reason.CONFLICT]
    if not errors or active == wanted or live.metadata.HasField("deletion_timestamp"):
        return None
    reason = "FailedCreate" if active < wanted else "FailedDelete"
    for known in live.status.conditions:
        if known.type == REPLICA_FAILURE and known.reason == reason:
            # The first words stay: the number of tries is no news.
            return known
    return replica_set_pb2.ReplicaSetCondition(
        type=REPLICA_FAILURE,
        status="True",
        reason=reason,
        message=str(errors[0]),
        last_transition_time=meta_pb2.Time(seconds=int(now)),
    )


def _labels(each: Pod) -> dict[str, str]:
    return dict(each.metadata.labels)


CONTROLLER = Controller(
    name="replicaset-controller",
    reads={
        ReplicaSet: itself,
        Pod: adoption.concerned(ReplicaSet),
    },
    writes=(
        Pod.DESCRIPTOR.full_name,
        f"{ReplicaSet.DESCRIPTOR.full_name}/status",
    ),
    reconcile=reconcile,
    indexes={Pod: {"orphan": adoption.orphan}},
)
