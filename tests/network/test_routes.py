"""Routes to other nodes: what should be there, and how it comes to be, in a real kernel."""

import ctypes
import os
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcore_api.kcore.core.v1 import node_pb2

from kcore.network import netlink, routes
from kcore.network.routes import TUNNEL, End, Found, Link, Peer, Plan, Route

LO, ETH = Link("lo", "127.0.0.1/8", 65536), Link("eth0", "192.0.2.1/24", 1500)
OWN = Peer("n1", "192.0.2.1", "10.244.1.0/24")
NEAR = Peer("n2", "192.0.2.2", "10.244.2.0/24")
FAR = Peer("n3", "198.51.100.3", "10.244.3.0/24")


def test_straight_where_both_are_on_a_link() -> None:
    assert routes.plan([NEAR, OWN], "n1", [LO, ETH]) == Plan(
        frozenset({Route("10.244.2.0/24", "192.0.2.2", "eth0")}), mtu=1500
    )


def test_through_a_tunnel_where_not() -> None:
    found = routes.plan([OWN, NEAR, FAR], "n1", [LO, ETH])
    assert found.routes == {
        Route("10.244.2.0/24", "192.0.2.2", "eth0"),
        Route("10.244.3.0/24", "10.244.3.0", TUNNEL),
    }
    assert found.ends == {End("198.51.100.3", "10.244.3.0", "02:6b:c6:33:64:03")}
    assert found.tunnel is not None
    assert (found.tunnel.device, found.tunnel.address) == ("eth0", "192.0.2.1")
    assert (found.tunnel.inner, found.tunnel.mtu) == ("10.244.1.0", 1450)


def test_services_stay_here() -> None:
    found = routes.plan([OWN], "n1", [LO, ETH], "10.96.0.0/12")
    assert found.routes == {Route("10.96.0.0/12", "", "lo", "192.0.2.1")}


def test_who_does_not_know_where_it_is_says_nothing() -> None:
    assert routes.plan([NEAR], "n1", [LO, ETH]).mtu == 0
    assert routes.plan([OWN, NEAR], "n1", [LO]).mtu == 0


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Peer("x", "192.0.2.9", "10.244.1.0/25"), "meets that of node n1"),
        (Peer("x", "192.0.2.9", "10.244.0.0/16"), "meets that of node n1"),
        (Peer("x", "192.0.2.9", "10.244.2.128/25"), "meets that of node n2"),
        (Peer("x", "192.0.2.1", "10.244.9.0/24"), "has this node's address"),
        (Peer("x", "192.0.2.9", "10.244.9.1/24"), "has host bits set"),
        (Peer("x", "192.0.2.9", "default; ip route flush"), "pods 'default; ip"),
    ],
)
def test_what_is_wrong_is_left_out_and_told(peer: Peer, said: str) -> None:
    found = routes.plan([OWN, NEAR, peer], "n1", [ETH])
    assert found.routes == {Route("10.244.2.0/24", "192.0.2.2", "eth0")}
    assert len(found.wrong) == 1 and said in found.wrong[0]


def test_what_a_node_says_of_itself() -> None:
    node = node_pb2.Node()
    node.metadata.name = "n1"
    assert routes.peer(node) is None
    node.spec.pod_cidr = "10.244.1.0/24"
    node.status.addresses.add(type="Hostname", address="n1")
    node.status.addresses.add(type="InternalIP", address="2001:db8::1")
    assert routes.peer(node) is None
    node.status.addresses.add(type="InternalIP", address="192.0.2.1")
    assert routes.peer(node) == OWN


PEERS = st.lists(st.integers(2, 9), unique=True, max_size=6).map(
    lambda numbers: [
        OWN,
        *(
            Peer(f"n{one}", f"{'192.0.2' if one % 2 else '198.51.100'}.{one}", f"10.244.{one}.0/24")
            for one in numbers
        ),
    ]
)


def done(found: Found, steps: routes.Steps) -> Found:
    """What there is after the steps, if the kernel does as it is told."""
    made, ends, tunnel = set(found.routes), set(found.ends), found.tunnel
    if steps.remove_tunnel:
        made, ends, tunnel = {one for one in made if one.device != TUNNEL}, set(), None
    made -= set(steps.remove_routes)
    tunnel = steps.make_tunnel or tunnel
    ends = (ends - set(steps.remove_ends)) | set(steps.make_ends)
    replaced = {one.to for one in steps.make_routes}
    made = {one for one in made if one.to not in replaced} | set(steps.make_routes)
    return Found(frozenset(made), tunnel, frozenset(ends))


@given(PEERS, PEERS)
def test_from_anywhere_to_anywhere(before: list[Peer], after: list[Peer]) -> None:
    plans = [routes.plan(peers, "n1", [ETH], "10.96.0.0/12") for peers in (before, after)]
    found = Found()
    for wanted in plans:
        steps = routes.difference(found, wanted)
        # What is right is not touched.
        assert not set(steps.make_routes) & (found.routes if not steps.remove_tunnel else set())
        assert not set(steps.remove_routes) & wanted.routes
        found = done(found, steps)
        assert found == Found(wanted.routes, wanted.tunnel, wanted.ends)
        assert not routes.difference(found, wanted)


# In a real kernel.

NAMESPACE = f"kcore-routes-{os.getpid()}"
_CLONE_NEWNET = 0x40000000


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True)
    return done.stdout.decode()


@pytest.fixture
def node() -> Iterator[None]:
    """This thread is in a namespace with a device."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes network namespaces")
    ip("netns", "add", NAMESPACE)
    with open("/proc/thread-self/ns/net") as old, open(f"/run/netns/{NAMESPACE}") as new:
        _enter(new.fileno())
        try:
            ip("link", "set", "lo", "up")
            ip("link", "add", "eth0", "type", "veth", "peer", "name", "far")
            ip("address", "add", "192.0.2.1/24", "dev", "eth0")
            ip("link", "set", "eth0", "up")
            ip("link", "set", "far", "up")
            ip("route", "add", "default", "via", "192.0.2.254")
            yield
        finally:
            _enter(old.fileno())
            ip("netns", "delete", NAMESPACE)


def converge(peers: list[Peer]) -> routes.Steps:
    wanted = routes.plan(peers, "n1", netlink.links(), "10.96.0.0/12")
    steps = routes.difference(netlink.found(), wanted)
    netlink.carry_out(steps)
    assert netlink.found() == Found(wanted.routes, wanted.tunnel, wanted.ends)
    assert not routes.difference(netlink.found(), wanted)
    return steps


@pytest.mark.cluster
def test_the_kernel_does_as_it_is_told_and_is_mended(node: None) -> None:
    converge([OWN])
    converge([OWN, NEAR, FAR])
    assert "via 192.0.2.2 dev eth0" in ip("route", "show", "10.244.2.0/24")
    assert f"via 10.244.3.0 dev {TUNNEL}" in ip("route", "show", "10.244.3.0/24")
    for harm in (
        ("route", "delete", "10.244.2.0/24"),
        ("route", "flush", "proto", "107"),
        ("link", "delete", TUNNEL),
        ("neighbour", "delete", "10.244.3.0", "dev", TUNNEL),
        ("link", "set", TUNNEL, "down"),
        ("route", "replace", "10.244.2.0/24", "via", "192.0.2.77", "proto", "107"),
    ):
        ip(*harm)
        assert converge([OWN, NEAR, FAR]), harm
    # Somebody else's route is nobody's business.
    ip("route", "add", "203.0.113.0/24", "via", "192.0.2.9")
    converge([OWN])
    assert "203.0.113.0/24" in ip("route", "show", "203.0.113.0/24")
    assert TUNNEL not in ip("link", "show")


@pytest.mark.cluster
def test_a_change_is_heard_of(node: None) -> None:
    watch = netlink.Watch()
    try:
        watch.drain()
        converge([OWN, NEAR])
        assert os.read(watch.fileno(), 1 << 16)
        watch.drain()
        ip("route", "delete", "10.244.2.0/24")
        assert os.read(watch.fileno(), 1 << 16)
    finally:
        watch.close()
