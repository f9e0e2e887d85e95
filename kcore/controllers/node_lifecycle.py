"""Nodes that come and go: what their silence and their conditions mean for pods.

A node lives by two signs: its lease is renewed, its kubelet confirms the Ready condition. When
neither has been seen for 40 seconds, the conditions that its kubelet wrote are unknown, and so its
pods are not ready. Conditions become taints, which keep pods away (NoSchedule, at once) or drive
them out (NoExecute, see `taint_eviction`). A kubelet that is back writes its conditions itself.

Taints that drive out come slowly, in each zone by itself: one node in ten seconds; where more than
55 % of its nodes are not well, one in a hundred seconds in a large zone and none in a small one;
and where no node of the cluster is well, those that are there are taken back: then it is more
likely that this side is ill.

Silence is measured by `View.held_seconds`: from when this process saw the last sign, only while it
was listening. Clocks that differ or jump, an apiserver that was away and a controller that begins
anew make no node silent. Keys are ("node", name) and ("zone", zone).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.coordination.v1 import lease_pb2
from kcore_api.kcore.core.v1 import affinity_pb2, node_pb2, pod_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.controllers import pod
from kcore.reconcile import transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said
from kcore.reconcile.view import View
from kcore.wire.placement import NO_EXECUTE, NO_SCHEDULE

Node = node_pb2.Node
Lease = lease_pb2.Lease
Pod = pod_pb2.Pod

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
LEASE_NAMESPACE = "kube-node-lease"

# Silence after which a node is given up: of one that has spoken, and of one that never has.
GRACE_SECONDS = 40.0
FIRST_GRACE_SECONDS = 60.0
# Between two nodes of a zone whose pods are driven out.
EVICTION_SECONDS = 10.0
SLOW_EVICTION_SECONDS = 100.0
# A zone of which so many nodes, and more than so many, are not well is in trouble itself.
TROUBLED_PART = 0.55
TROUBLED_NODES = 2
# In trouble, a zone of more nodes than this goes on slowly; a smaller one waits.
LARGE_ZONE_NODES = 50
# Held times grow in steps: looking more often is of no use.
_LEAST_WAIT_SECONDS = 1.0

_KUBELETS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
# By condition and status: a taint that keeps new pods away.
_TAINTED = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
# The taints of effect NoSchedule that are this controller's; and of NoExecute.
_OURS = frozenset((*_TAINTED.values(), UNSCHEDULABLE))
_DRIVING = frozenset((NOT_READY, UNREACHABLE))
_DRIVEN_BY = {"False": NOT_READY, "Unknown": UNREACHABLE}


@dataclass(frozen=True, slots=True)
class _Facts:
    """What zones ask of a node."""

    zone: str
    # Of condition Ready; "" where there is none.
    ready: str
    # The taint that drives pods out, and the one that should.
    driving: str
    wanted: str


def _facts(node: Node) -> _Facts:
    ready = _status(node, "Ready")
    there = [
        taint.key
        for taint in node.spec.taints
        if taint.key in _DRIVING and taint.effect == NO_EXECUTE
    ]
    labels = node.metadata.labels
    region = labels.get("topology.kubernetes.io/region", "")
    zone = labels.get("topology.kubernetes.io/zone", "")
    return _Facts(f"{region}/{zone}", ready, there[0] if there else "", _DRIVEN_BY.get(ready, ""))


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one node, or for one zone."""
    what, name = key
    if what == "zone":
        return _zone(view, name, now)
    live = view.get(Node, "", name)
    if live is None or live.metadata.HasField("deletion_timestamp"):
        return NOTHING
    if _status(live, "Ready") == "Unknown":
        silent, wait = None, None
    else:
        silent, wait = _silence(view, live, now)
    if silent is not None:
        return silent
    transactions = []
    taints = _taints(live, now)
    if taints != list(live.spec.taints):
        transactions.append(_tainted(live, taints))
    events: list[Said] = []
    if _status(live, "Ready") == "Unknown":
        for each in view.list(Pod, index=("node", name)):
            if _is_ready(each):
                unready = _unready(each, now)
                transactions.append(unready)
                said = Said(each, "NodeNotReady", "Node is not ready", "Warning", unready)
                events.append(said)
    return Result(tuple(transactions), None if wait is None else now + wait, tuple(events))


# Silence.


def _silence(view: View, live: Node, now: float) -> tuple[Result | None, float | None]:
    """What is to be done if the node has been silent for too long; else when that may be."""
    name = live.metadata.name
    lease = view.get(Lease, LEASE_NAMESPACE, name)
    spoke = bool(_status(live, "Ready"))
    held = view.held_seconds(live, "sign", _confirmed(live))
    if lease is not None:
        held = min(held, view.held_seconds(lease, "sign", _renewed(lease)))
    grace = GRACE_SECONDS if spoke or lease is not None else FIRST_GRACE_SECONDS
    if held < grace:
        return None, max(_LEAST_WAIT_SECONDS, grace - held)
    fresh = Node()
    fresh.status.conditions.extend(live.status.conditions)
    for type_ in _KUBELETS:
        _unknown(fresh.status, type_, now)
    # A sign that comes meanwhile wins.
    guards = []
    if lease is not None:
        guards = transaction.same(transaction.ref(lease), lease.metadata, unchanged=True)
    written = transaction.patch(
        live,
        fresh,
        ["status.conditions"],
        unchanged=True,
        guards=guards,
        subresource="status",
    )
    events: tuple[Said, ...] = ()
    if _status(live, "Ready") == "True":
        message = f"Node {name} status is now: NodeNotReady"
        events = (Said(live, "NodeNotReady", message, of=written),)
    return Result((written,), None, events), None


def _unknown(status: node_pb2.NodeStatus, type_: str, now: float) -> None:
    moment = meta_pb2.Time(seconds=int(now))
    for condition in status.conditions:
        if condition.type == type_:
            reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
            break
    else:
        condition = status.conditions.add(type=type_)
        reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
    if condition.status != "Unknown":
        condition.status = "Unknown"
        condition.last_transition_time.CopyFrom(moment)
        condition.reason, condition.message = reason, message


def _confirmed(node: Node) -> str:
    """What a kubelet changes of its Node to say that it lives."""
    for condition in node.status.conditions:
        if condition.type == "Ready" and condition.HasField("last_heartbeat_time"):
            return str(condition.last_heartbeat_time.seconds)
    return ""


def _renewed(lease: Lease) -> str:
    """The same of its lease."""
    renewed = lease.spec.renew_time
    return f"{lease.spec.holder_identity} {renewed.seconds}.{renewed.nanos:09}"


# Pods.


def _is_ready(each: Pod) -> bool:
    found = pod.condition(each, "Ready")
    return found is not None and found.status == "True"


def _unready(each: Pod, now: float) -> pb.Transaction:
    """The pod is not ready, as far as anybody can tell."""
    fresh = Pod()
    fresh.status.conditions.extend(each.status.conditions)
    for condition in fresh.status.conditions:
        if condition.type == "Ready":
            condition.status = "False"
            condition.last_transition_time.CopyFrom(meta_pb2.Time(seconds=int(now)))
    # Not over what its kubelet says, should it be back.
    return transaction.patch(
        each, fresh, ["status.conditions"], unchanged=True, subresource="status"
    )


# Taints.


def _taints(live: Node, now: float) -> list[affinity_pb2.Taint]:
    """The node's taints as they should be, but for the coming of those that drive pods out."""
    wanted = {
        _TAINTED[each.type, each.status]: None
        for each in live.status.conditions
        if (each.type, each.status) in _TAINTED
    }
    if live.spec.unschedulable:
        wanted[UNSCHEDULABLE] = None
    driving = _DRIVEN_BY.get(_status(live, "Ready"), "")
    kept = []
    changed = False
    for taint in live.spec.taints:
        if taint.effect == NO_SCHEDULE and taint.key in _OURS:
            if taint.key not in wanted:
                continue
            del wanted[taint.key]
        elif taint.effect == NO_EXECUTE and taint.key in _DRIVING and taint.key != driving:
            changed = True
            continue
        kept.append(taint)
    kept += [affinity_pb2.Taint(key=key, effect=NO_SCHEDULE) for key in wanted]
    if changed and driving and not any(_drives(taint, driving) for taint in kept):
        # Whoever was to go has to go still, for another reason.
        kept.append(_driving(driving, now))
    return kept


def _drives(taint: affinity_pb2.Taint, key: str) -> bool:
    return taint.key == key and taint.effect == NO_EXECUTE


def _driving(key: str, now: float) -> affinity_pb2.Taint:
    return affinity_pb2.Taint(
        key=key, effect=NO_EXECUTE, time_added=meta_pb2.Time(seconds=int(now))
    )


def _tainted(live: Node, taints: Sequence[affinity_pb2.Taint]) -> pb.Transaction:
    fresh = Node(spec=node_pb2.NodeSpec(taints=taints))
    return transaction.patch(live, fresh, ["spec.taints"], unchanged=True)


def _status(node: Node, type_: str) -> str:
    for condition in node.status.conditions:
        if condition.type == type_:
            return condition.status
    return ""


# Zones.


def _zone(view: View, zone: str, now: float) -> Result:
    """Drives pods out of one more node, if it is time; or out of none any more."""
    nodes = [(each, view.fact(_facts, each)) for each in view.list(Node)]
    there = [(each, facts) for each, facts in nodes if facts.zone == zone]
    if not any(facts.ready == "True" for _, facts in nodes):
        return Result(
            tuple(
                _tainted(each, [one for one in each.spec.taints if not _drives(one, facts.driving)])
                for each, facts in there
                if facts.driving
            )
        )
    waiting = [
        (-view.held_seconds(each, "ready", facts.ready), each.metadata.name, each, facts.wanted)
        for each, facts in there
        if facts.wanted and not facts.driving
    ]
    pause = _pause(len(there), sum(facts.ready != "True" for _, facts in there))
    if not waiting or pause is None:
        return NOTHING
    last = min(
        (
            view.held_seconds(each, "taints", f"{facts.driving}:{NO_EXECUTE}")
            for each, facts in there
            if facts.driving
        ),
        default=pause,
    )
    if last < pause:
        return Result((), now + max(_LEAST_WAIT_SECONDS, pause - last))
    _, _, first, wanted = min(waiting, key=lambda each: each[:2])
    written = _tainted(first, [*first.spec.taints, _driving(wanted, now)])
    return Result((written,), now + pause if len(waiting) > 1 else None)


def _pause(there: int, unwell: int) -> float | None:
    """Seconds between two nodes of a zone; None: none at all."""
    if unwell > TROUBLED_NODES and unwell >= TROUBLED_PART * there:
        return SLOW_EVICTION_SECONDS if there > LARGE_ZONE_NODES else None
    return EVICTION_SECONDS


# What is read.


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    """Keys: the node; and the zones, when it comes, goes, or is as it was not."""
    yield ("node", (new or old).metadata.name)  # type: ignore[union-attr]
    was = None if old is None else _facts(old)
    is_ = None if new is None else view.fact(_facts, new)
    if was == is_:
        return
    if (was is not None and was.ready == "True") != (is_ is not None and is_.ready == "True"):
        # Whether any node is well is every zone's matter.
        zones = {view.fact(_facts, each).zone for each in view.list(Node)}
    else:
        zones = set()
    zones |= {facts.zone for facts in (was, is_) if facts is not None}
    for zone in sorted(zones):
        yield ("zone", zone)


def _of_lease(view: View, old: Lease | None, new: Lease | None) -> Iterable[Key]:
    """Keys: the node of a lease that comes or goes; renewals are looked at when it is time."""
    meta = (new or old).metadata  # type: ignore[union-attr]
    if meta.namespace == LEASE_NAMESPACE and (old is None or new is None):
        yield ("node", meta.name)


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterable[Key]:
    """Keys: the node of a pod that seems to be ready there while nobody can tell."""
    if new is None or not new.spec.node_name or not _is_ready(new):
        return
    node = view.get(Node, "", new.spec.node_name)
    if node is not None and _status(node, "Ready") == "Unknown":
        yield ("node", new.spec.node_name)


def taints(node: Node) -> Iterable[str]:
    """Trait: the taints that drive pods out."""
    for taint in node.spec.taints:
        if taint.effect == NO_EXECUTE:
            yield f"{taint.key}:{taint.effect}"


def _sign_of_node(node: Node) -> Iterable[str]:
    yield _confirmed(node)


def _sign_of_lease(lease: Lease) -> Iterable[str]:
    yield _renewed(lease)


def _ready(node: Node) -> Iterable[str]:
    yield _status(node, "Ready")


CONTROLLER = Controller(
    name="node-controller",
    reads={Node: _of_node, Lease: _of_lease, Pod: _of_pod},
    writes=(
        Node.DESCRIPTOR.full_name,
        f"{Node.DESCRIPTOR.full_name}/status",
        f"{Pod.DESCRIPTOR.full_name}/status",
    ),
    reconcile=reconcile,
    indexes={Pod: {"node": pod.node}},
    traits={
        Node: {"sign": _sign_of_node, "ready": _ready, "taints": taints},
        Lease: {"sign": _sign_of_lease},
    },
)
