"""What the scheduler must know of one node. `of(node)` reads it off; pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kcore_api.kcore.core.v1 import node_pb2

from kcore.scheduler import demand
from kcore.wire import placement
from kcore.wire.placement import Taint


@dataclass(frozen=True, slots=True)
class Facts:
    """A node, as far as pods are concerned."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    # Those that forbid (NoSchedule, NoExecute), and those that only advise against.
    taints: tuple[Taint, ...] = ()
    advice: tuple[Taint, ...] = ()
    unschedulable: bool = False
    allocatable: Mapping[str, int] = field(default_factory=dict)


def of(node: node_pb2.Node) -> Facts:
    """What there is to know of the node."""
    taints = placement.taints(node.spec)
    return Facts(
        name=node.metadata.name,
        labels=dict(node.metadata.labels),
        taints=tuple(taint for taint in taints if taint.effect != placement.PREFER_NO_SCHEDULE),
        advice=tuple(taint for taint in taints if taint.effect == placement.PREFER_NO_SCHEDULE),
        unschedulable=node.spec.unschedulable,
        # Whoever tells only the capacity reserves nothing.
        allocatable=demand.amounts(node.status.allocatable or node.status.capacity),
    )
