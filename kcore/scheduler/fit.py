"""Where a pod may run, and why not elsewhere.

`refusal` judges one node by what does not depend on other pods: cordons, taints, selectors.
`room` judges many nodes at once by what is left of their resources; `lacking` names what is too
little. `explain` makes the sentence that people read out of the reasons of all nodes. Pure.
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kcore.scheduler import demand
from kcore.scheduler.demand import Demand
from kcore.scheduler.node import Facts
from kcore.wire import placement
from kcore.wire.placement import Taint

Amounts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


class Want(Enum):
    """What a pod misses on a node; the values are the order in which people are told."""

    ROOM = 0
    TOLERANCE = 1
    LABELS = 2
    OPENNESS = 3
    PORTS = 4


class Reason(NamedTuple):
    """Why a pod does not fit on a node."""

    want: Want
    text: str


CORDONED = Reason(Want.OPENNESS, "node(s) were unschedulable")
UNSELECTED = Reason(Want.LABELS, "node(s) didn't match Pod's node affinity/selector")
PORTS_TAKEN = Reason(Want.PORTS, "node(s) didn't have free ports for the requested pod ports")
FULL = Reason(Want.ROOM, "Too many pods")


def insufficient(resource: str) -> Reason:
    """Too little of it is left."""
    return FULL if resource == demand.PODS else Reason(Want.ROOM, f"Insufficient {resource}")


def untolerated(taint: Taint) -> Reason:
    """The pod cannot live with the taint."""
    return Reason(Want.TOLERANCE, f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}")


def refusal(asked: Demand, node: Facts) -> Reason | None:
    """Why the node is out of the question whoever else runs there; None: it is not."""
    if node.unschedulable and not placement.tolerated(asked.tolerations, _CORDON):
        return CORDONED
    for taint in node.taints:
        if not placement.tolerated(asked.tolerations, taint):
            return untolerated(taint)
    if not placement.selected(asked.labels, asked.terms, node.name, node.labels):
        return UNSELECTED
    return None


def intolerable(asked: Demand, node: Facts) -> int:
    """How many pieces of the node's advice against pods this one would disregard."""
    return sum(not placement.tolerated(asked.tolerations, taint) for taint in node.advice)


def room(request: Amounts, free: Amounts) -> Mask:
    """For each row of `free`: whether all that is asked for is left. What is not asked for may
    be overdrawn (a pod that was put there by name)."""
    asked = request > 0
    enough: Mask = np.all(free[:, asked] >= request[asked], axis=1)
    return enough


def lacking(request: Amounts, free: Amounts) -> list[int]:
    """The columns of which too little is left in one row."""
    return [int(column) for column in np.flatnonzero((request > 0) & (request > free))]


def explain(reasons: Iterable[Reason], nodes: int) -> str:
    """What people are told: each reason with the number of nodes that it keeps the pod from."""
    if not nodes:
        return "no nodes available to schedule pods"
    counts: dict[Reason, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    ordered = sorted(counts, key=lambda reason: (reason.want.value, reason.text))
    said = ", ".join(f"{counts[reason]} {reason.text}" for reason in ordered)
    return f"0/{nodes} nodes are available: {said}."
