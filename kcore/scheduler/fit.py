"""Where a pod may run, and why not elsewhere.

`refusal` judges one node by what does not depend on other pods: cordons, taints, selectors.
`room` judges many nodes at once by what is left of their resources; `lacking` names what is too
little. `explain` makes the sentence that people read out of the reasons of all nodes. Pure.
"""

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kcore.scheduler import demand
from kcore.scheduler.demand import Demand, Requirement, Term
from kcore.scheduler.node import Facts, Taint

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
    if node.unschedulable and not tolerated(asked, _CORDON):
        return CORDONED
    for taint in node.taints:
        if not tolerated(asked, taint):
            return untolerated(taint)
    return None if selected(asked, node) else UNSELECTED


def intolerable(asked: Demand, node: Facts) -> int:
    """How many pieces of the node's advice against pods this one would disregard."""
    return sum(not tolerated(asked, taint) for taint in node.advice)


def tolerated(asked: Demand, taint: Taint) -> bool:
    """Whether one of the pod's tolerations covers the taint."""
    return any(
        toleration.effect in ("", taint.effect)
        and (toleration.key == taint.key or (not toleration.key and toleration.exists))
        and (toleration.exists or toleration.value == taint.value)
        for toleration in asked.tolerations
    )


def selected(asked: Demand, node: Facts) -> bool:
    """Whether nodeSelector and required node affinity both match."""
    for key, value in asked.labels:
        if node.labels.get(key) != value:
            return False
    return asked.terms is None or any(_matches(term, node) for term in asked.terms)


def _matches(term: Term, node: Facts) -> bool:
    if not term.labels and not term.fields:
        return False
    name = {"metadata.name": node.name}
    return all(_holds(r, node.labels) for r in term.labels) and all(
        _holds(r, name) for r in term.fields
    )


def _holds(requirement: Requirement, values: Mapping[str, str]) -> bool:
    check = _OPERATORS.get(requirement.operator)
    return check is not None and check(values.get(requirement.key), requirement.values)


def _greater(value: str | None, bounds: tuple[str, ...]) -> bool:
    return _numbers(value, bounds, lambda number, bound: number > bound)


def _less(value: str | None, bounds: tuple[str, ...]) -> bool:
    return _numbers(value, bounds, lambda number, bound: number < bound)


def _numbers(
    value: str | None, bounds: tuple[str, ...], compare: Callable[[int, int], bool]
) -> bool:
    if value is None or len(bounds) != 1:
        return False
    try:
        return compare(int(value), int(bounds[0]))
    except ValueError:
        return False


# A label that is not there differs from every value.
_OPERATORS: Mapping[str, Callable[[str | None, tuple[str, ...]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
    "Gt": _greater,
    "Lt": _less,
}


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
