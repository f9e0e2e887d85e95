"""Taints that drive pods out: who does not tolerate them goes, at once or when the time is up.

A pod goes when its node has a NoExecute taint that none of its tolerations covers, or that one
covers for so many seconds which are over. They count from when this process saw the taint, or the
pod on the node, by its own clock and only while it listens: what a clock says, a time in which the
apiserver was away, a restart let nobody go early. A taint that is taken back cancels. That the node
is still as it was seen is part of the deletion's transaction.

Keys are (namespace, name) of a pod, and with the taint's key and value behind them where it was
taken back: then there may be something to say. It must not know why nodes have taints.
"""

from collections.abc import Iterable, Iterator

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.controllers import node_lifecycle, pod
from kcore.reconcile import transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result, Said
from kcore.reconcile.view import View
from kcore.wire import placement
from kcore.wire.placement import NO_EXECUTE, Taint

Node = node_pb2.Node
Pod = pod_pb2.Pod

_REASON = "DeletionByTaintManager"
_MESSAGE = "Taint manager: deleting due to NoExecute taint"
# Held times grow in steps: looking more often is of no use.
_LEAST_WAIT_SECONDS = 1.0


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one pod."""
    live = view.get(Pod, key[0], key[1])
    if live is None or live.metadata.HasField("deletion_timestamp"):
        return NOTHING
    node = view.get(Node, "", live.spec.node_name) if live.spec.node_name else None
    if node is None:
        return NOTHING
    left = _seconds_left(view, live, node)
    name = f"{live.metadata.namespace}/{live.metadata.name}"
    if len(key) > 2:
        gone = Taint(key[2], key[3], NO_EXECUTE)
        if left is not None or not _tolerated_seconds(live, gone):
            return NOTHING
        said = Said(live, "TaintManagerEviction", f"Cancelling deletion of Pod {name}")
        return Result(events=(said,))
    if left is None:
        return NOTHING
    if left > 0:
        return Result(again_at=now + max(_LEAST_WAIT_SECONDS, left))
    deletion = _evicted(live, node, now)
    message = f"Marking for deletion Pod {name}"
    return Result((deletion,), events=(Said(live, "TaintManagerEviction", message, of=deletion),))


def _seconds_left(view: View, live: Pod, node: Node) -> float | None:
    """How long the pod may stay; None: for ever."""
    there = view.held_seconds(live, "node", live.spec.node_name)
    left = []
    for taint in _driving(node):
        seconds = _tolerated_seconds(live, taint)
        if seconds is not None:
            held = view.held_seconds(node, "taints", f"{taint.key}:{taint.effect}")
            left.append(seconds - min(there, held))
    return min(left, default=None)


def _tolerated_seconds(live: Pod, taint: Taint) -> float | None:
    """How long the pod bears the taint; None: for ever."""
    for each in live.spec.tolerations:
        if placement.tolerates(placement.toleration(each), taint):
            has_end = each.HasField("toleration_seconds")
            return max(0.0, float(each.toleration_seconds)) if has_end else None
    return 0.0


def _evicted(live: Pod, node: Node, now: float) -> pb.Transaction:
    """The pod says why it goes, and goes."""
    fresh = pod.doomed(live, _REASON, _MESSAGE, now)
    tainted = transaction.same(transaction.ref(node), node.metadata, unchanged=True)
    marked = transaction.patch(
        live,
        fresh,
        ["status.conditions"],
        unchanged=True,
        guards=tainted,
        subresource="status",
    )
    return transaction.atomic(marked, transaction.delete(live))


def _driving(node: Node) -> list[Taint]:
    return [taint for taint in placement.taints(node.spec) if taint.effect == NO_EXECUTE]


# What is read.


def _of_pod(view: View, old: Pod | None, new: Pod | None) -> Iterable[Key]:
    """Keys: a pod that is on a node with taints that drive it out."""
    if new is None or not new.spec.node_name:
        return
    node = view.get(Node, "", new.spec.node_name)
    if node is not None and view.fact(_driving, node):
        yield (new.metadata.namespace, new.metadata.name)


def _of_node(view: View, old: Node | None, new: Node | None) -> Iterator[Key]:
    """Keys: the pods of a node whose taints that drive out have changed."""
    was = [] if old is None else _driving(old)
    is_ = [] if new is None else view.fact(_driving, new)
    if new is None or was == is_:
        return
    gone = [taint for taint in was if taint not in is_]
    for each in view.list(Pod, index=("node", new.metadata.name)):
        name = (each.metadata.namespace, each.metadata.name)
        yield name
        for taint in gone:
            yield (*name, taint.key, taint.value)


def _node(live: Pod) -> Iterable[str]:
    """Trait: where it is."""
    yield live.spec.node_name


CONTROLLER = Controller(
    name="taint-eviction-controller",
    reads={Pod: _of_pod, Node: _of_node},
    writes=(Pod.DESCRIPTOR.full_name, f"{Pod.DESCRIPTOR.full_name}/status"),
    reconcile=reconcile,
    indexes={Pod: {"node": pod.node}},
    traits={Node: {"taints": node_lifecycle.taints}, Pod: {"node": _node}},
)
