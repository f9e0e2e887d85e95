"""Records: what services are called, and what is there. Pure.

By Kubernetes' DNS specification 1.1.0. A service with an address has it under
<service>.<namespace>.svc; one without (headless) has those of its ready endpoints there, and each
endpoint has a name of its own below. Named ports have SRV records; addresses have PTR records; an
ExternalName is another name. What is no name, or no address, is left out, whoever has stored it:
nothing of what users write reaches a zone file but words that have been looked at.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kcore_api.kcore.core.v1 import service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")
_NAME_BYTES: Final = 253
_PROTOCOLS: Final = {"": "tcp", "TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


class Record(NamedTuple):
    """One line of a zone. `name` is whole, without the last dot; `value` as in the file."""

    name: str
    type: str
    value: str


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A ready endpoint of a headless service."""

    host: str
    address: Address
    # Of named ports: name, protocol, number.
    ports: tuple[tuple[str, str, int], ...]


def of_service(service: Service, slices: Iterable[EndpointSlice], domain: str) -> Sequence[Record]:
    """All records of one service, in a fixed order, each once."""
    meta, spec = service.metadata, service.spec
    if not _is_label(meta.name) or not _is_label(meta.namespace):
        return ()
    name = f"{meta.name}.{meta.namespace}.svc.{domain}"
    if spec.type == "ExternalName":
        target = spec.external_name.lower().rstrip(".")
        return (Record(name, "CNAME", f"{target}."),) if _is_name(target) else ()
    given = [*spec.cluster_ips] or [spec.cluster_ip]
    if "None" in given:
        found = _headless(name, _endpoints(slices))
    else:
        found = _addressed(name, service, _addresses(given))
    return tuple(dict.fromkeys(found))


def _addressed(name: str, service: Service, addresses: Sequence[Address]) -> Iterator[Record]:
    if not addresses:
        return
    for address in addresses:
        yield _address(name, address)
    for port in service.spec.ports:
        if _is_label(port.name) and 0 < port.port < 65536:
            yield _service_port(name, port.name, port.protocol, port.port, name)
    for address in addresses:
        yield Record(address.reverse_pointer, "PTR", f"{name}.")


def _headless(name: str, endpoints: Sequence[_Endpoint]) -> Iterator[Record]:
    for one in endpoints:
        yield _address(name, one.address)
    for one in endpoints:
        yield _address(f"{one.host}.{name}", one.address)
    for one in endpoints:
        for port, protocol, number in one.ports:
            yield _service_port(name, port, protocol, number, f"{one.host}.{name}")
    for one in endpoints:
        yield Record(one.address.reverse_pointer, "PTR", f"{one.host}.{name}.")


def _endpoints(slices: Iterable[EndpointSlice]) -> Sequence[_Endpoint]:
    """Those that are ready, in order; one that does not say is."""
    found: dict[tuple[str, Address], _Endpoint] = {}
    for each in slices:
        ports = tuple(
            (port.name, port.protocol, port.port)
            for port in each.ports
            if _is_label(port.name) and 0 < port.port < 65536
        )
        for endpoint in each.endpoints:
            if endpoint.conditions.HasField("ready") and not endpoint.conditions.ready:
                continue
            for address in _addresses(endpoint.addresses):
                dashed = str(address).replace(".", "-").replace(":", "-").strip("-")
                host = endpoint.hostname if _is_label(endpoint.hostname) else dashed
                known = found.get((host, address))
                more = (*known.ports, *ports) if known is not None else ports
                found[host, address] = _Endpoint(host, address, tuple(dict.fromkeys(more)))
    return [found[key] for key in sorted(found, key=lambda k: (k[1].version, k[1].packed, k[0]))]


def _addresses(texts: Iterable[str]) -> Sequence[Address]:
    found: list[Address] = []
    for text in texts:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
            continue
        found.append(address)
    return found


def _address(name: str, address: Address) -> Record:
    return Record(name, "A" if address.version == 4 else "AAAA", str(address))


def _service_port(name: str, port: str, protocol: str, number: int, target: str) -> Record:
    where = _PROTOCOLS.get(protocol, "tcp")
    return Record(f"_{port}._{where}.{name}", "SRV", f"0 100 {number} {target}.")


def _is_label(text: str) -> bool:
    return _LABEL.match(text) is not None


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _NAME_BYTES and all(map(_is_label, text.split(".")))


def reverse_zones(networks: Iterable[Network]) -> Sequence[str]:
    """The zones under which addresses of the networks have their PTR records.

    Names are cut at octets (IPv4) or half-octets (IPv6), so a network has one zone or several.
    """
    zones: dict[str, None] = {}
    for network in networks:
        step, size = (8, 8) if network.version == 4 else (4, 4)
        prefix = min(-(-network.prefixlen // step) * step, network.max_prefixlen - size)
        parts: Iterable[Network] = (network,)
        if prefix > network.prefixlen:
            parts = network.subnets(new_prefix=prefix)
        elif prefix < network.prefixlen:
            parts = (network.supernet(new_prefix=prefix),)
        for part in parts:
            labels = part.network_address.reverse_pointer.split(".")
            kept = (network.max_prefixlen - prefix) // step
            zones[".".join(labels[kept:])] = None
    return tuple(zones)


def by_zone(records: Iterable[Record], zones: Iterable[str]) -> Mapping[str, Sequence[Record]]:
    """Each record in the zone that its name ends in; what is in none is left out."""
    found: dict[str, list[Record]] = {zone: [] for zone in zones}
    for record in records:
        labels = record.name.split(".")
        for start in range(len(labels)):
            zone = found.get(".".join(labels[start:]))
            if zone is not None:
                zone.append(record)
                break
    return found
