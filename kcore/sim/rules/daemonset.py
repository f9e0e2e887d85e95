"""DaemonSets: one pod a node, and with surge one more while it rolls."""

from collections.abc import Iterator

from google.protobuf.message import Message

from kcore.kernel.record import Record, Verb
from kcore.sim import world as worlds
from kcore.sim.world import DaemonSet, Pod, World


def one_each(
    world: World, record: Record, old: Message | None, new: Message | None
) -> Iterator[str]:
    """No pod is made for a node while the one that it follows is there."""
    if record.verb is not Verb.CREATE or not isinstance(new, Pod):
        return
    name = next((o.name for o in new.metadata.owner_references if o.controller), "")
    owner = world.get(DaemonSet.DESCRIPTOR.full_name, new.metadata.namespace, name)
    if not isinstance(owner, DaemonSet) or owner.metadata.uid != worlds.manager(new):
        return
    node = node_of(new)
    others = [
        pod.metadata.name
        for pod in world.owned(owner.metadata.uid, Pod)
        if node_of(pod) == node and not worlds.is_over(pod)
    ]
    most = 1 + owner.spec.update_strategy.rolling_update.max_surge.int_val
    if len(others) + 1 > most:
        yield f"is one more for {node}, which has {', '.join(others)}"


def node_of(pod: Pod) -> str:
    """The node that it runs on, or is made for."""
    required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    meant = [
        value
        for term in required.node_selector_terms
        for one in term.match_fields
        if one.key == "metadata.name"
        for value in one.values
    ]
    return pod.spec.node_name or "".join(meant[:1])
