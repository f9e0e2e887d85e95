"""What a pod asks of a node: the same for all pods of one template.

`of(pod)` reads it off once; equal demands are one object, so whatever is worked out for one pod of
a template serves all. Amounts are whole numbers: cpu in thousandths, all else in units.
It must not know any node.
"""

import functools
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kcore_api.kcore.core.v1 import container_pb2, pod_pb2, pod_spec_pb2
from kcore_api.kcore.meta.v1 import meta_pb2

from kcore.wire import placement, quantity
from kcore.wire.placement import Term, Toleration

CPU, MEMORY, EPHEMERAL, PODS = "cpu", "memory", "ephemeral-storage", "pods"

# What a container that asks for none is taken to use, in scores only.
UNASKED = {CPU: 100, MEMORY: 200 * 1024 * 1024}

# More than any machine has, and little enough that sums of thousands stay exact in 64 bits.
MOST = 2**51


class Port(NamedTuple):
    """A port on the node."""

    protocol: str
    number: int
    # "" for every address.
    address: str


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Demand:
    """What a pod asks of a node. Equal ones are the same object while one of them is in use."""

    # Sorted by resource, without zeros.
    request: tuple[tuple[str, int], ...]
    # The same with a guess for containers that ask for nothing.
    score_cpu: int
    score_memory: int
    labels: tuple[tuple[str, str], ...]
    # None: any node. Otherwise one of the terms must match.
    terms: tuple[Term, ...] | None
    tolerations: tuple[Toleration, ...]
    ports: tuple[Port, ...]
    # Whether it asks for any cpu or memory at all.
    asks: bool


_known: "weakref.WeakValueDictionary[bytes, Demand]" = weakref.WeakValueDictionary()


def of(pod: pod_pb2.Pod) -> Demand:
    """What the pod asks for."""
    spec = pod.spec
    key = _essence(spec)
    found = _known.get(key)
    if found is None:
        found = _read(spec)
        _known[key] = found
    return found


def amounts(quantities: Mapping[str, meta_pb2.Quantity]) -> dict[str, int]:
    """Whole numbers by resource."""
    return {name: amount(name, quantities[name].string) for name in sorted(quantities)}


@functools.lru_cache(maxsize=4096)
def amount(resource: str, text: str) -> int:
    """One amount as a whole number; what is no quantity counts as nothing."""
    try:
        number = quantity.milli(text) if resource == CPU else quantity.value(text)
    except ValueError:
        # The kernel lets no such text in; a pod must not stop the scheduling of all others.
        return 0
    return max(0, min(MOST, number))


def _essence(spec: pod_spec_pb2.PodSpec) -> bytes:
    """Everything that `_read` looks at, as bytes."""
    essence = pod_spec_pb2.PodSpec(
        node_selector=spec.node_selector,
        tolerations=spec.tolerations,
        overhead=spec.overhead,
        host_network=spec.host_network,
    )
    if spec.affinity.HasField("node_affinity"):
        affinity = spec.affinity.node_affinity
        if affinity.HasField("required_during_scheduling_ignored_during_execution"):
            essence.affinity.node_affinity.required_during_scheduling_ignored_during_execution.CopyFrom(
                affinity.required_during_scheduling_ignored_during_execution
            )
    for container in spec.containers:
        _keep(container, essence.containers.add())
    for container in spec.init_containers:
        kept = essence.init_containers.add()
        _keep(container, kept)
        kept.restart_policy = container.restart_policy
    return essence.SerializeToString(deterministic=True)


def _keep(container: container_pb2.Container, kept: container_pb2.Container) -> None:
    if container.HasField("resources"):
        kept.resources.CopyFrom(container.resources)
    kept.ports.extend(container.ports)


def _read(spec: pod_spec_pb2.PodSpec) -> Demand:
    request = effective(spec, {})
    scored = effective(spec, UNASKED)
    where = placement.of(spec)
    return Demand(
        request=tuple(sorted((name, most) for name, most in request.items() if most)),
        score_cpu=scored.get(CPU, 0),
        score_memory=scored.get(MEMORY, 0),
        labels=where.labels,
        terms=where.terms,
        tolerations=where.tolerations,
        ports=_ports(spec),
        asks=bool(request.get(CPU) or request.get(MEMORY)),
    )


def effective(spec: pod_spec_pb2.PodSpec, unasked: Mapping[str, int]) -> dict[str, int]:
    """What the pod needs at its hungriest moment.

    Containers run together; init containers one by one before them, beside the sidecars (init
    containers with restartPolicy Always) that were started earlier and run on.
    """
    running: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers:
        asked = _asked(container, unasked)
        if container.restart_policy == "Always":
            _add(running, asked)
            _raise_to(peak, running)
        else:
            together = dict(running)
            _add(together, asked)
            _raise_to(peak, together)
    for container in spec.containers:
        _add(running, _asked(container, unasked))
    _raise_to(peak, running)
    _add(peak, amounts(spec.overhead))
    return {name: min(MOST, most) for name, most in peak.items()}


def _asked(container: container_pb2.Container, unasked: Mapping[str, int]) -> dict[str, int]:
    return {**unasked, **amounts(container.resources.requests)}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


def _raise_to(peak: dict[str, int], total: Mapping[str, int]) -> None:
    for name, number in total.items():
        peak[name] = max(peak.get(name, 0), number)


def _ports(spec: pod_spec_pb2.PodSpec) -> tuple[Port, ...]:
    sidecars = [c for c in spec.init_containers if c.restart_policy == "Always"]
    found = set()
    for container in [*sidecars, *spec.containers]:
        for port in container.ports:
            number = port.host_port or (port.container_port if spec.host_network else 0)
            if number:
                address = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
                found.add(Port(port.protocol or "TCP", number, address))
    return tuple(sorted(found))
