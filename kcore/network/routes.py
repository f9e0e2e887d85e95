"""Routes: how a node's packets get to the pods of all others.

`plan(nodes, own, links)` is pure. To a node on a link that both have, straight: its pods are behind
its address. To any other, through a VXLAN device: everybody's end of the tunnel has an address and
a link address that follow from the node's, so nobody has to tell anybody. Pods keep their addresses
all the way. What is said wrongly of a node is left out, and told.

It must not know how routes are made.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kcore_api.kcore.core.v1 import node_pb2

# The tunnel device, its number, and the port: the kernel's old default is 8472, IANA's 4789.
TUNNEL, TUNNEL_ID, TUNNEL_PORT = "kcore-vxlan", 1, 4789
# What the tunnel's headers take of a packet: outer Ethernet, IPv4, UDP, VXLAN.
TUNNEL_BYTES = 50


@dataclass(frozen=True, slots=True)
class Link:
    """A device of this machine with an address: "eth0", "192.0.2.7/24", 1500."""

    device: str
    address: str
    mtu: int

    @property
    def network(self) -> ipaddress.IPv4Network:
        """All that is on the link."""
        return ipaddress.IPv4Interface(self.address).network


@dataclass(frozen=True, slots=True)
class Peer:
    """A node as far as routes are concerned."""

    name: str
    address: str
    pods: str


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """To a network by way of an address that is on a device; "" via: it is on the device itself."""

    to: str
    via: str
    device: str
    # The address that this node's own packets have; "": the kernel chooses.
    source: str = ""


@dataclass(frozen=True, slots=True, order=True)
class End:
    """The other end of the tunnel: where it is, and what it is called there."""

    node: str
    inner: str
    link_address: str


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The VXLAN device: over which other device, and as whom."""

    device: str
    address: str
    inner: str
    link_address: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that this node should have. `mtu`: of pods; 0: nothing can be said.

    `wrong`: what was left out, and why.
    """

    routes: frozenset[Route] = frozenset()
    tunnel: Tunnel | None = None
    ends: frozenset[End] = frozenset()
    mtu: int = 0
    wrong: tuple[str, ...] = ()


def peer(node: node_pb2.Node) -> Peer | None:
    """What a Node object says; None: it has no address or no pods yet."""
    addresses = [one.address for one in node.status.addresses if one.type == "InternalIP"]
    address = next((one for one in addresses if _is_ipv4(one)), "")
    if not address or not node.spec.pod_cidr:
        return None
    return Peer(node.metadata.name, address, node.spec.pod_cidr)


def plan(peers: Iterable[Peer], own: str, links: Sequence[Link], services: str = "") -> Plan:
    """What the node `own` should have; `services`: the network of services' addresses."""
    found = sorted(peers, key=lambda one: one.name)
    me = next((one for one in found if one.name == own), None)
    if me is None:
        return Plan(wrong=(f"node {own} has no address yet",))
    home = next((link for link in links if _host(link) == me.address), None)
    if home is None:
        return Plan(wrong=(f"no device of this node has its address {me.address}",))
    others, wrong = _sound([one for one in found if one.name != own], me)
    routes: set[Route] = set()
    ends: set[End] = set()
    for one in others:
        link = next((link for link in links if _is_on(one.address, link)), None)
        if link is not None:
            routes.add(Route(one.pods, one.address, link.device))
            continue
        inner = _inner(one.pods)
        routes.add(Route(one.pods, inner, TUNNEL))
        ends.add(End(one.address, inner, _link_address(one.address)))
    tunnel = None
    if ends:
        mtu = home.mtu - TUNNEL_BYTES
        inner = _inner(me.pods)
        tunnel = Tunnel(home.device, me.address, inner, _link_address(me.address), mtu)
    if services:
        # So that the node's own programs get to services even where there is no way out; and what
        # is sent to nobody's address stays here, to be refused.
        routes.add(Route(str(ipaddress.IPv4Network(services)), "", "lo", me.address))
    return Plan(frozenset(routes), tunnel, frozenset(ends), home.mtu, tuple(wrong))


def _sound(peers: Sequence[Peer], me: Peer) -> tuple[list[Peer], list[str]]:
    """Those whose networks can be routed to: no two of them meet, nor any with this node's."""
    sound: list[Peer] = []
    wrong: list[str] = []
    taken = [(me.name, ipaddress.IPv4Network(me.pods))]
    for one in peers:
        try:
            network = ipaddress.IPv4Network(one.pods)
        except ValueError as error:
            wrong.append(f"node {one.name}: pods {one.pods!r}: {error}")
            continue
        clash = next((name for name, other in taken if other.overlaps(network)), None)
        if clash is not None:
            wrong.append(f"node {one.name}: its pods' {network} meets that of node {clash}")
        elif one.address == me.address:
            wrong.append(f"node {one.name} has this node's address {one.address}")
        else:
            taken.append((one.name, network))
            sound.append(one)
    return sound, wrong


def _is_on(address: str, link: Link) -> bool:
    return link.device != "lo" and ipaddress.IPv4Address(address) in link.network


def _host(link: Link) -> str:
    return str(ipaddress.IPv4Interface(link.address).ip)


def _inner(pods: str) -> str:
    """The address of a node's end of the tunnel: the network's own, which no pod has."""
    return str(ipaddress.IPv4Network(pods).network_address)


def _link_address(address: str) -> str:
    """Of a node's end of the tunnel: locally administered, with the node's address in it."""
    return ":".join(
        ("02", "6b", *(f"{part:02x}" for part in ipaddress.IPv4Address(address).packed))
    )


def _is_ipv4(text: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(text)) == text
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of this kind in the kernel: what carries our mark."""

    routes: frozenset[Route] = frozenset()
    tunnel: Tunnel | None = None
    ends: frozenset[End] = frozenset()


@dataclass(frozen=True, slots=True)
class Steps:
    """What leads from what there is to what should be, in this order."""

    remove_tunnel: bool = False
    remove_routes: tuple[Route, ...] = ()
    remove_ends: tuple[End, ...] = ()
    make_tunnel: Tunnel | None = None
    make_ends: tuple[End, ...] = ()
    make_routes: tuple[Route, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return any(getattr(self, name) for name in self.__slots__)


def difference(found: Found, wanted: Plan) -> Steps:
    """The steps; what is right is not touched."""
    anew = found.tunnel != wanted.tunnel
    routes, ends = found.routes, found.ends
    if anew and found.tunnel is not None:
        # They go with their device.
        routes = frozenset(one for one in routes if one.device != TUNNEL)
        ends = frozenset()
    made = wanted.routes - routes
    # A route to the same network is replaced, so that there is one at any time.
    replaced = {one.to for one in made}
    return Steps(
        remove_tunnel=anew and found.tunnel is not None,
        remove_routes=tuple(sorted(r for r in routes - wanted.routes if r.to not in replaced)),
        remove_ends=tuple(sorted(ends - wanted.ends)),
        make_tunnel=wanted.tunnel if anew else None,
        make_ends=tuple(sorted(wanted.ends - ends)),
        make_routes=tuple(sorted(made)),
    )
