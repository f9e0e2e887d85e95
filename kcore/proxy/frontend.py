"""Frontends: the addresses and ports on which one node answers for a service, and what is behind.

`frontends(service, slices, node)` is pure. A frontend is an address with a protocol and a port, or
a port of the node itself; behind it are endpoints, those that this node may use: ready ones, or,
where there is none, those that still serve though they end; where the policy is Local, its own.
It knows nothing of nftables. What is not an IPv4 address or a port is left out here, so whatever
objects say, only numbers get further.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kcore_api.kcore.core.v1 import service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice

SERVICE_NAME = "kubernetes.io/service-name"
PROTOCOLS = ("tcp", "udp", "sctp")
# In place of an address: any of the node's own.
NODE = ""
HEADLESS = "None"


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """Where a client sends to; address NODE: to a port of this node."""

    address: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where it goes."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Behind:
    """What is behind a frontend."""

    backends: frozenset[Backend]
    # The client's address is hidden, so that answers come back this way.
    masquerade: bool = False
    # A client stays with a backend for so long; 0: it does not.
    affinity_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """What a node does for one service; `hairpin`: own endpoints, which may reach themselves."""

    frontends: Mapping[Frontend, Behind]
    hairpin: frozenset[str]


NOTHING = Served({}, frozenset())


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """An endpoint of one port of a service."""

    backend: Backend
    is_ready: bool
    is_local: bool


def served(service: Service | None, slices: Iterable[EndpointSlice], node: str) -> Served:
    """What this node does for a service."""
    if service is None or service.spec.type == "ExternalName":
        return NOTHING
    spec = service.spec
    if spec.cluster_ip in ("", HEADLESS) or service.metadata.HasField("deletion_timestamp"):
        return NOTHING
    ports = [port for port in spec.ports if _protocol(port.protocol)]
    by_port = _by_port(slices, node)
    seconds = 0
    if spec.session_affinity == "ClientIP":
        seconds = spec.session_affinity_config.client_ip.timeout_seconds or 10_800
    found: dict[Frontend, Behind] = {}
    hairpin: set[str] = set()
    for port in ports:
        protocol = _protocol(port.protocol)
        endpoints = by_port.get((port.name, protocol), ())
        hairpin |= {one.backend.address for one in endpoints if one.is_local}
        inside = Behind(
            usable(endpoints, spec.internal_traffic_policy == "Local"), affinity_seconds=seconds
        )
        is_local = spec.external_traffic_policy == "Local"
        outside = Behind(usable(endpoints, is_local), not is_local, seconds)
        for address in _external(service):
            found[Frontend(address, protocol, port.port)] = outside
        if _is_port(port.node_port):
            found[Frontend(NODE, protocol, port.node_port)] = outside
        for address in filter(_is_address, (spec.cluster_ip,)):
            # Last: what is sent to the cluster's own address is the cluster's own.
            found[Frontend(address, protocol, port.port)] = inside
    return Served(found, frozenset(hairpin))


def usable(endpoints: Sequence[_Endpoint], own_only: bool) -> frozenset[Backend]:
    """The ready ones; where there is none, those that still serve."""
    near = [one for one in endpoints if one.is_local] if own_only else endpoints
    ready = frozenset(one.backend for one in near if one.is_ready)
    return ready or frozenset(one.backend for one in near)


def _by_port(
    slices: Iterable[EndpointSlice], node: str
) -> Mapping[tuple[str, str], Sequence[_Endpoint]]:
    """The endpoints that take traffic at all, by name and protocol of their port."""
    found: dict[tuple[str, str], dict[Backend, _Endpoint]] = {}
    for each in slices:
        if each.address_type != "IPv4":
            continue
        for port in each.ports:
            protocol = _protocol(port.protocol)
            if not protocol or not _is_port(port.port):
                continue
            known = found.setdefault((port.name, protocol), {})
            for one in _endpoints(each, port.port, node):
                # One that is moving from slice to slice is in both for a moment.
                if one.backend not in known or one.is_ready:
                    known[one.backend] = one
    return {key: [known[one] for one in sorted(known)] for key, known in found.items()}


def _endpoints(each: EndpointSlice, port: int, node: str) -> Iterator[_Endpoint]:
    for endpoint in each.endpoints:
        if not endpoint.addresses or not _is_address(endpoint.addresses[0]):
            continue
        says = endpoint.conditions
        is_ready = not says.HasField("ready") or says.ready
        # Absent: as ready.
        is_serving = says.serving if says.HasField("serving") else is_ready
        if is_ready or (is_serving and says.terminating):
            backend = Backend(endpoint.addresses[0], port)
            yield _Endpoint(backend, is_ready, bool(node) and endpoint.node_name == node)


def _external(service: Service) -> Iterator[str]:
    yield from filter(_is_address, service.spec.external_ips)
    if service.spec.type == "LoadBalancer":
        for ingress in service.status.load_balancer.ingress:
            if ingress.ip_mode != "Proxy" and _is_address(ingress.ip):
                yield ingress.ip


def _protocol(text: str) -> str:
    found = (text or "TCP").lower()
    return found if found in PROTOCOLS else ""


def _is_port(number: int) -> bool:
    return 0 < number < 65536


def _is_address(text: str) -> bool:
    """Whether it is an IPv4 address, in its one spelling."""
    try:
        return str(ipaddress.IPv4Address(text)) == text
    except ValueError:
        return False
