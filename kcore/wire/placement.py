"""Where a pod may run, as far as labels and taints say: what pods and nodes write of it, read off.

    where = placement.of(pod.spec)
    placement.selected(where, name, labels)          # nodeSelector and required node affinity
    placement.tolerated(where.tolerations, taint)

The same words decide for who places pods, who wants one on each node, and who takes them away when
a node changes. Pure values; knows no object.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kcore_api.kcore.core.v1 import affinity_pb2, node_pb2, pod_spec_pb2

NO_SCHEDULE, NO_EXECUTE, PREFER_NO_SCHEDULE = "NoSchedule", "NoExecute", "PreferNoSchedule"


class Requirement(NamedTuple):
    """One condition on one label, or on the node's name."""

    key: str
    operator: str
    values: tuple[str, ...]


class Term(NamedTuple):
    """Conditions that must all hold; with none at all it matches no node."""

    labels: tuple[Requirement, ...]
    fields: tuple[Requirement, ...]


class Toleration(NamedTuple):
    """Taints that the pod can live with; "" for every key, every effect."""

    key: str
    exists: bool
    value: str
    effect: str


class Taint(NamedTuple):
    """Keeps pods away that do not tolerate it."""

    key: str
    value: str
    effect: str


class Placement(NamedTuple):
    """What a pod says of the nodes that it may run on."""

    labels: tuple[tuple[str, str], ...]
    # None: any node. Otherwise one of the terms must match.
    terms: tuple[Term, ...] | None
    tolerations: tuple[Toleration, ...]


def of(spec: pod_spec_pb2.PodSpec) -> Placement:
    """What the pod says."""
    terms = None
    if spec.affinity.node_affinity.HasField("required_during_scheduling_ignored_during_execution"):
        required = spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
        terms = tuple(_term(term) for term in required.node_selector_terms)
    return Placement(
        tuple(sorted(spec.node_selector.items())),
        terms,
        tuple(toleration(each) for each in spec.tolerations),
    )


def toleration(said: affinity_pb2.Toleration) -> Toleration:
    """What one toleration of a pod says."""
    return Toleration(said.key, said.operator == "Exists", said.value, said.effect)


def taints(node: node_pb2.NodeSpec) -> tuple[Taint, ...]:
    """What the node says."""
    return tuple(Taint(taint.key, taint.value, taint.effect) for taint in node.taints)


def tolerated(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Whether one of the tolerations covers the taint."""
    return any(tolerates(each, taint) for each in tolerations)


def tolerates(one: Toleration, taint: Taint) -> bool:
    """Whether this toleration covers the taint."""
    return (
        one.effect in ("", taint.effect)
        and (one.key == taint.key or (not one.key and one.exists))
        and (one.exists or one.value == taint.value)
    )


def selected(
    labels: Iterable[tuple[str, str]],
    terms: tuple[Term, ...] | None,
    node: str,
    node_labels: Mapping[str, str],
) -> bool:
    """Whether nodeSelector and required node affinity both match the node of this name."""
    for key, value in labels:
        if node_labels.get(key) != value:
            return False
    return terms is None or any(_matches(term, node, node_labels) for term in terms)


def _matches(term: Term, node: str, labels: Mapping[str, str]) -> bool:
    if not term.labels and not term.fields:
        return False
    name = {"metadata.name": node}
    return all(_holds(r, labels) for r in term.labels) and all(_holds(r, name) for r in term.fields)


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


def _term(term: affinity_pb2.NodeSelectorTerm) -> Term:
    return Term(_requirements(term.match_expressions), _requirements(term.match_fields))


def _requirements(
    expressions: Iterable[affinity_pb2.NodeSelectorRequirement],
) -> tuple[Requirement, ...]:
    return tuple(Requirement(e.key, e.operator, tuple(e.values)) for e in expressions)
