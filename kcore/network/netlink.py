"""The door to the kernel's routes and devices: rtnetlink, by pyroute2.

    links(), found()      what there is
    carry_out(steps)      what should be different, step by step; may be repeated
    Watch                 becomes readable when devices, addresses or routes have changed

What is ours carries a mark: routes the number of their maker, the tunnel its name. Nothing else is
touched. All of it acts in the network namespace of its process, and blocks.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from kcore.network import routes
from kcore.network.routes import TUNNEL, TUNNEL_ID, TUNNEL_PORT, End, Found, Link, Route, Tunnel

# By which routes are known as ours (rtm_protocol: 128 to 191 are anybody's, this is k).
MAKER = 0x6B
_MAIN_TABLE = 254
_ON_LINK = 4
_PERMANENT = 0x80
_LINK_SCOPE = 253
# linux/rtnetlink.h: link, neighbour, IPv4 address, IPv4 route.
_GROUPS = 0x1 | 0x4 | 0x10 | 0x40


class RouteError(Exception):
    """The kernel refused; the text says what."""


def links() -> list[Link]:
    """The devices that have an address."""
    with IPRoute() as ip:
        devices = {one["index"]: one for one in ip.get_links()}
        return [
            Link(
                devices[one["index"]].get_attr("IFLA_IFNAME"),
                f"{one.get_attr('IFA_LOCAL') or one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}",
                devices[one["index"]].get_attr("IFLA_MTU"),
            )
            for one in ip.get_addr(family=socket.AF_INET)
            if one["index"] in devices
        ]


def found() -> Found:
    """What there is that is ours."""
    with IPRoute() as ip:
        names = {one["index"]: one.get_attr("IFLA_IFNAME") for one in ip.get_links()}
        made = frozenset(_routes(ip, names))
        index = next((index for index, name in names.items() if name == TUNNEL), None)
        if index is None:
            return Found(made)
        return Found(made, _tunnel(ip, index, names), frozenset(_ends(ip, index)))


def carry_out(steps: routes.Steps) -> None:
    """Does it. RouteError where the kernel refuses; what was done until then stays."""
    try:
        with IPRoute() as ip:
            if steps.remove_tunnel:
                ip.link("del", index=_index(ip, TUNNEL))
            for route in steps.remove_routes:
                with contextlib.suppress(NetlinkError):
                    ip.route("del", **_words(ip, route))
            if steps.make_tunnel is not None:
                _make_tunnel(ip, steps.make_tunnel)
            for end in steps.remove_ends:
                _forget_end(ip, end)
            for end in steps.make_ends:
                _make_end(ip, end)
            for route in steps.make_routes:
                ip.route("replace", **_words(ip, route))
    except NetlinkError as error:
        raise RouteError(f"{steps}: {error}") from error


def _routes(ip: Any, names: dict[int, str]) -> Iterator[Route]:
    for one in ip.get_routes(family=socket.AF_INET):
        if one["proto"] != MAKER or one.get_attr("RTA_TABLE") != _MAIN_TABLE:
            continue
        yield Route(
            f"{one.get_attr('RTA_DST')}/{one['dst_len']}",
            one.get_attr("RTA_GATEWAY") or "",
            names.get(one.get_attr("RTA_OIF"), ""),
            one.get_attr("RTA_PREFSRC") or "",
        )


def _tunnel(ip: Any, index: int, names: dict[int, str]) -> Tunnel | None:
    (link,) = ip.get_links(index)
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    if data is None or info.get_attr("IFLA_INFO_KIND") != "vxlan" or link["state"] != "up":
        return None
    inner = [one.get_attr("IFA_LOCAL") for one in ip.get_addr(family=socket.AF_INET, index=index)]
    return Tunnel(
        names.get(data.get_attr("IFLA_VXLAN_LINK"), ""),
        data.get_attr("IFLA_VXLAN_LOCAL") or "",
        inner[0] if inner else "",
        link.get_attr("IFLA_ADDRESS"),
        link.get_attr("IFLA_MTU"),
    )


def _ends(ip: Any, index: int) -> Iterator[End]:
    """Those that are known both as neighbours and as places."""
    where = {
        one.get_attr("NDA_LLADDR"): one.get_attr("NDA_DST")
        for one in ip.get_neighbours(family=socket.AF_BRIDGE, ifindex=index)
        if one.get_attr("NDA_DST")
    }
    for one in ip.get_neighbours(family=socket.AF_INET, ifindex=index):
        link_address = one.get_attr("NDA_LLADDR")
        if link_address in where and one["state"] & _PERMANENT:
            yield End(where[link_address], one.get_attr("NDA_DST"), link_address)


def _make_tunnel(ip: Any, tunnel: Tunnel) -> None:
    with contextlib.suppress(NetlinkError, RouteError):
        # One that is not as it should be.
        ip.link("del", index=_index(ip, TUNNEL))
    ip.link(
        "add",
        ifname=TUNNEL,
        kind="vxlan",
        address=tunnel.link_address,
        mtu=tunnel.mtu,
        vxlan_id=TUNNEL_ID,
        vxlan_link=_index(ip, tunnel.device),
        vxlan_local=tunnel.address,
        vxlan_port=TUNNEL_PORT,
        vxlan_learning=0,
    )
    index = _index(ip, TUNNEL)
    ip.addr("add", index=index, address=tunnel.inner, prefixlen=32)
    ip.link("set", index=index, state="up")


def _make_end(ip: Any, end: End) -> None:
    index = _index(ip, TUNNEL)
    ip.neigh("replace", dst=end.inner, lladdr=end.link_address, ifindex=index, state="permanent")
    with contextlib.suppress(NetlinkError):
        ip.fdb("del", ifindex=index, lladdr=end.link_address)
    ip.fdb("add", ifindex=index, lladdr=end.link_address, dst=end.node)


def _forget_end(ip: Any, end: End) -> None:
    index = _index(ip, TUNNEL)
    with contextlib.suppress(NetlinkError):
        ip.neigh("del", dst=end.inner, ifindex=index)
    with contextlib.suppress(NetlinkError):
        ip.fdb("del", ifindex=index, lladdr=end.link_address, dst=end.node)


def _words(ip: Any, route: Route) -> dict[str, Any]:
    words: dict[str, Any] = {"dst": route.to, "oif": _index(ip, route.device), "proto": MAKER}
    if route.via:
        words["gateway"] = route.via
        words["flags"] = _ON_LINK
    else:
        words["scope"] = _LINK_SCOPE
    if route.source:
        words["prefsrc"] = route.source
    return words


def _index(ip: Any, device: str) -> int:
    found = ip.link_lookup(ifname=device)
    if not found:
        raise RouteError(f"there is no device {device}")
    return int(found[0])


class Watch:
    """Tells that devices, addresses, neighbours or routes have changed, whoever did it."""

    def __init__(self) -> None:
        """Listens from now on."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """To wait on."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Reads away what has come."""
        while True:
            try:
                self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                # More came than there was room for; what came is of no interest.
                continue

    def close(self) -> None:
        """Listens no more."""
        self._socket.close()
