"""Pods of nodes that are gone: nobody will ever run or end them, so they are removed at once.

A pod that is younger than its node's absence could be (somebody bound it to a node that is only
coming) gets a while. The deletion is guarded by the node still being absent; whoever's finalizers
hold the pod reads in it that it failed, and why. Pods on no node need nobody: their deletion is
complete at once, by the kernel. Pure.
"""

from collections.abc import Iterable

from kcore_api.kcore.core.v1 import node_pb2, pod_pb2

from kcore.controllers import pod
from kcore.reconcile import transaction
from kcore.reconcile.controller import NOTHING, Controller, Key, Result
from kcore.reconcile.view import View

Pod = pod_pb2.Pod
Node = node_pb2.Node

# How old a pod has to be before its node counts as gone.
_PATIENCE_SECONDS = 40.0


def reconcile(view: View, key: Key, now: float) -> Result:
    """What is to be done for one Pod."""
    live = view.get(Pod, *key)
    if live is None or not live.spec.node_name:
        return NOTHING
    if view.get(Node, "", live.spec.node_name) is not None:
        return NOTHING
    meta = live.metadata
    if meta.HasField("deletion_timestamp") and meta.deletion_grace_period_seconds == 0:
        # Somebody's finalizers hold it.
        return NOTHING
    due = live.metadata.creation_timestamp.seconds + _PATIENCE_SECONDS
    if now < due:
        return Result(again_at=due)
    node = Node()
    node.metadata.name = live.spec.node_name
    absent = transaction.absent(transaction.ref(node))
    fresh = pod.doomed(live, "DeletionByPodGC", "PodGC: node no longer exists", now)
    fresh.status.phase = live.status.phase if live.status.phase in pod.OVER else "Failed"
    failed = transaction.patch(
        live,
        fresh,
        ["status.conditions", "status.phase"],
        unchanged=True,
        guards=[absent],
        subresource="status",
    )
    return Result((transaction.atomic(failed, transaction.delete(live, grace_seconds=0)),))


def _if_orphaned(view: View, _old: Pod | None, new: Pod | None) -> Iterable[Key]:
    """Keys: a pod that is bound to a node that is not there."""
    if new is None or not new.spec.node_name:
        return
    if view.get(Node, "", new.spec.node_name) is None:
        yield (new.metadata.namespace, new.metadata.name)


def _its_pods(view: View, old: Node | None, new: Node | None) -> Iterable[Key]:
    """Keys: the pods of a node that is gone."""
    if old is None or new is not None:
        return
    for each in view.list(Pod, index=("node", old.metadata.name)):
        yield (each.metadata.namespace, each.metadata.name)


CONTROLLER = Controller(
    name="pod-garbage-collector",
    reads={Pod: _if_orphaned, Node: _its_pods},
    writes=(Pod.DESCRIPTOR.full_name, f"{Pod.DESCRIPTOR.full_name}/status"),
    reconcile=reconcile,
    indexes={Pod: {"node": pod.node}},
)
