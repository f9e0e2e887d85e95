"""Records by Kubernetes' DNS specification, row by row; zones that another parser reads back."""

import io
import ipaddress
from collections.abc import Iterable
from typing import Any

import dns.rdatatype
import dns.zone
import hypothesis.strategies as st
import pytest
from hypothesis import given
from kcore_api.kcore.core.v1 import service_pb2
from kcore_api.kcore.discovery.v1 import endpoint_slice_pb2

from kcore.dns import records, render
from kcore.dns.records import Record
from kcore.dns.zones import Zones

Service = service_pb2.Service
EndpointSlice = endpoint_slice_pb2.EndpointSlice
DOMAIN = "cluster.local"


def service(
    name: str = "web", *ips: str, ports: Iterable[tuple[str, str, int]] = (), **spec: Any
) -> Service:
    made = Service(metadata={"name": name, "namespace": "shop"}, spec=spec)
    made.spec.cluster_ips.extend(ips)
    for port, protocol, number in ports:
        made.spec.ports.add(name=port, protocol=protocol, port=number)
    return made


def endpoints(
    *given: tuple[str, str, bool | None], ports: Iterable[tuple[str, str, int]] = ()
) -> EndpointSlice:
    """(address, hostname, ready); None: it does not say."""
    made = EndpointSlice(metadata={"name": "web-1", "namespace": "shop"}, address_type="IPv4")
    for address, hostname, ready in given:
        one = made.endpoints.add(addresses=[address])
        if hostname:
            one.hostname = hostname
        if ready is not None:
            one.conditions.ready = ready
    for port, protocol, number in ports:
        made.ports.add(name=port, protocol=protocol, port=number)
    return made


def lines(found: Iterable[Record]) -> list[str]:
    return [f"{one.name} {one.type} {one.value}" for one in found]


WEB = "web.shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("made", "slices", "expected"),
    [
        # 2.3.1 and 2.3.2: a service with an address.
        (service("web", "10.96.1.2"), [],
         [f"{WEB} A 10.96.1.2", f"2.1.96.10.in-addr.arpa PTR {WEB}."]),
        (service("web", "10.96.1.2", "fd00::5"), [],
         [f"{WEB} A 10.96.1.2", f"{WEB} AAAA fd00::5",
          f"2.1.96.10.in-addr.arpa PTR {WEB}.",
          f"5{'.0' * 27}.0.0.d.f.ip6.arpa PTR {WEB}."]),
        # Named ports only.
        (service("web", "10.96.1.2",
                 ports=[("http", "TCP", 80), ("", "TCP", 81), ("q", "UDP", 53)]),
         [],
         [f"{WEB} A 10.96.1.2", f"_http._tcp.{WEB} SRV 0 100 80 {WEB}.",
          f"_q._udp.{WEB} SRV 0 100 53 {WEB}.", f"2.1.96.10.in-addr.arpa PTR {WEB}."]),
        # 2.4: headless. Ready ones, under the service and under a name each.
        (service("web", "None"),
         [endpoints(("10.244.1.2", "web-0", True), ("10.244.1.3", "", None),
                    ("10.244.1.4", "web-2", False), ports=[("http", "TCP", 8080)])],
         [f"{WEB} A 10.244.1.2", f"{WEB} A 10.244.1.3",
          f"web-0.{WEB} A 10.244.1.2", f"10-244-1-3.{WEB} A 10.244.1.3",
          f"_http._tcp.{WEB} SRV 0 100 8080 web-0.{WEB}.",
          f"_http._tcp.{WEB} SRV 0 100 8080 10-244-1-3.{WEB}.",
          f"2.1.244.10.in-addr.arpa PTR web-0.{WEB}.",
          f"3.1.244.10.in-addr.arpa PTR 10-244-1-3.{WEB}."]),
        # None is ready: there is no such name.
        (service("web", "None"), [endpoints(("10.244.1.4", "web-2", False))], []),
        (service("web", "None"), [], []),
        # 2.5: another name.
        (service("web", type="ExternalName", external_name="DB.example.com."), [],
         [f"{WEB} CNAME db.example.com."]),
        # No address yet.
        (service("web"), [], []),
    ],
)  # fmt: skip
def test_the_specification(made: Service, slices: list[EndpointSlice], expected: list[str]) -> None:
    found = lines(records.of_service(made, slices, DOMAIN))
    assert [line for line in found if "ip6.arpa" not in line] == [
        line for line in expected if "ip6.arpa" not in line
    ]
    assert len(found) == len(expected)


HOSTILE = [
    "a b", "a\nb", "a;b", 'a"b', "a(b", "$INCLUDE", "@", "*", "..", "a.b", "A", "-a", "a-",
    "{{7*7}}", "a" * 64, "\x00", "é", "", "a\\046b", "a\tb", "_tcp",
]  # fmt: skip


@pytest.mark.parametrize("word", HOSTILE, ids=repr)
def test_S78_hostile_names_add_no_record(word: str) -> None:
    bad = Service(metadata={"name": word, "namespace": "shop"})
    bad.spec.cluster_ips.append("10.96.0.9")
    assert records.of_service(bad, [], DOMAIN) == ()
    bad = Service(metadata={"name": "web", "namespace": word})
    bad.spec.cluster_ips.append("10.96.0.9")
    assert records.of_service(bad, [], DOMAIN) == ()
    if word not in ("a.b", "A"):
        outside = service("web", type="ExternalName", external_name=f"x.{word}.y")
        assert records.of_service(outside, [], DOMAIN) == ()
    hosts = records.of_service(
        service("web", "None"), [endpoints(("10.244.0.1", word, True))], DOMAIN
    )
    assert lines(hosts)[1] == f"10-244-0-1.{WEB} A 10.244.0.1"
    named = records.of_service(service("web", "10.96.0.9", ports=[(word, "TCP", 80)]), [], DOMAIN)
    assert not any(one.type == "SRV" for one in named)


@pytest.mark.parametrize(
    "address", ["", "x", "10.0.0.1\nevil A 1.2.3.4", "10.0.0.256", "fe80::1%eth0", "1"]
)
def test_S78_what_is_no_address_is_left_out(address: str) -> None:
    assert records.of_service(service("web", address), [], DOMAIN) == ()
    made = service("web", "None")
    assert records.of_service(made, [endpoints((address, "h", True))], DOMAIN) == ()


def test_S76_namespaces_may_have_any_name() -> None:
    for namespace in ("com", "svc", "cluster", "local"):
        made = Service(metadata={"name": "google", "namespace": namespace})
        made.spec.cluster_ips.append("10.96.0.9")
        found = records.of_service(made, [], DOMAIN)
        assert found[0].name == f"google.{namespace}.svc.cluster.local"


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.244.0.0/16", ["244.10.in-addr.arpa"]),
        ("10.96.0.0/12", [f"{n}.10.in-addr.arpa" for n in range(96, 112)]),
        ("192.0.2.0/24", ["2.0.192.in-addr.arpa"]),
        ("192.0.2.128/25", ["2.0.192.in-addr.arpa"]),
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("fd00:1::/32", ["1.0.0.0.0.0.d.f.ip6.arpa"]),
    ],
)
def test_reverse_zones(network: str, zones: list[str]) -> None:
    assert list(records.reverse_zones([ipaddress.ip_network(network)])) == zones


def read_back(zone: render.Zone) -> set[tuple[str, str, str]]:
    """What another program understands of the file."""
    parsed = dns.zone.from_file(io.StringIO(zone.text(7)), origin=None, relativize=False)
    assert parsed.origin is not None and parsed.origin.to_text() == f"{zone.name}."
    return {
        (name.to_text().rstrip("."), dns.rdatatype.to_text(data.rdtype), data.to_text())
        for name, ttl, data in parsed.iterate_rdatas()
        if data.rdtype not in (dns.rdatatype.SOA, dns.rdatatype.NS)
    }


LABELS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?\Z")
ADDRESSES = st.integers(1, 2**16 - 2).map(
    lambda number: str(ipaddress.ip_address("10.96.0.0") + number)
)
PORTS = st.lists(
    st.tuples(LABELS, st.sampled_from(["TCP", "UDP", "SCTP"]), st.integers(1, 65535)), max_size=3
)


@given(st.dictionaries(st.tuples(LABELS, LABELS), st.tuples(ADDRESSES, PORTS), max_size=8))
def test_every_zone_is_read_back_as_it_was(
    services: dict[tuple[str, str], tuple[str, list[tuple[str, str, int]]]],
) -> None:
    zones = Zones(DOMAIN, "10.96.0.10")
    zones.serve([ipaddress.ip_network("10.96.0.0/12")])
    expected: set[tuple[str, str, str]] = set()
    for (namespace, name), (address, ports) in services.items():
        made = Service(metadata={"name": name, "namespace": namespace})
        made.spec.cluster_ips.append(address)
        for port, protocol, number in ports:
            made.spec.ports.add(name=port, protocol=protocol, port=number)
        found = records.of_service(made, [], DOMAIN)
        zones.update({(namespace, name): found})
        expected |= set(found)
    there: set[tuple[str, str, str]] = set()
    for name in zones.names:
        there |= read_back(zones.zone(name))
    assert there - expected == {
        ("ns.dns.cluster.local", "A", "10.96.0.10"),
        ("dns-version.cluster.local", "TXT", '"1.1.0"'),
    }
    assert expected <= there


def test_a_change_touches_only_its_zones() -> None:
    zones = Zones(DOMAIN, "10.96.0.10")
    assert zones.serve([ipaddress.ip_network("10.96.0.0/12")])
    assert not zones.serve([ipaddress.ip_network("10.96.0.0/12")])
    found = records.of_service(service("web", "10.97.0.1"), [], DOMAIN)
    assert zones.update({("shop", "web"): found}) == (DOMAIN, "97.10.in-addr.arpa")
    assert zones.update({("shop", "web"): found}) == ()
    assert zones.update({("shop", "web"): ()}) == (DOMAIN, "97.10.in-addr.arpa")
    assert read_back(zones.zone("97.10.in-addr.arpa")) == set()
