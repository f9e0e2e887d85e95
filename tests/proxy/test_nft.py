"""The ruleset in a real kernel: what is written is read again, and packets go where it says."""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kcore.proxy import conntrack, nft, ruleset
from kcore.proxy.frontend import NODE, Backend, Behind, Frontend, Served
from kcore.proxy.rules import Rules

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes network namespaces"),
]

CLIENT, SERVER = "kcore-proxy-here", "kcore-proxy-there"
BACKENDS = [Backend(f"10.9.1.{number}", 8080) for number in (1, 2, 3)]
WEB = Frontend("10.96.0.7", "tcp", 80)
_CLONE_NEWNET = 0x40000000


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def _inside(name: str) -> Iterator[None]:
    """This thread is in another network namespace."""
    with open("/proc/thread-self/ns/net") as old, open(f"/run/netns/{name}") as new:
        _enter(new.fileno())
        try:
            yield
        finally:
            _enter(old.fileno())


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wire() -> Iterator[None]:
    """Two namespaces: in one the rules and the client, in the other the endpoints."""
    for name in (CLIENT, SERVER):
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", CLIENT, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", SERVER)
    _ip("-n", CLIENT, "address", "add", "10.9.1.254/24", "dev", "v0")
    for backend in BACKENDS:
        _ip("-n", SERVER, "address", "add", f"{backend.address}/24", "dev", "v1")
    _ip("-n", CLIENT, "link", "set", "v0", "up")
    _ip("-n", SERVER, "link", "set", "v1", "up")
    _ip("-n", CLIENT, "route", "add", "default", "via", "10.9.1.1")
    yield
    for name in (CLIENT, SERVER):
        _ip("netns", "delete", name)


@pytest.fixture
def library(wire: None) -> Iterator[nft.Nft]:
    """nftables of the client's namespace, empty."""
    with _inside(CLIENT), nft.Nft() as made:
        made.run("flush ruleset")
        yield made


@pytest.fixture(scope="module")
def servers(wire: None) -> Iterator[None]:
    """Each endpoint says its address, and whom it sees."""
    with _inside(SERVER):
        tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind(("0.0.0.0", 8080))
    tcp.listen(64)
    udps = []
    with _inside(SERVER):
        for backend in BACKENDS:
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind((backend.address, 8080))
            udps.append((backend.address, one))

    def serve() -> None:
        while True:
            try:
                connection, peer = tcp.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{connection.getsockname()[0]} {peer[0]}".encode())

    def echo(address: str, one: socket.socket) -> None:
        while True:
            try:
                _, peer = one.recvfrom(99)
                if peer is None:
                    return
                one.sendto(f"{address} {peer[0]}".encode(), peer)
            except OSError:
                return

    threads = [threading.Thread(target=serve, daemon=True)]
    threads += [threading.Thread(target=echo, args=pair, daemon=True) for pair in udps]
    for thread in threads:
        thread.start()
    yield
    for each in (tcp, udp, *(one for _, one in udps)):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


def ask(address: str, port: int) -> tuple[str, str]:
    """Who answers, and as whom we are seen."""
    with socket.create_connection((address, port), 2) as connection:
        answer, _, seen = connection.recv(99).decode().partition(" ")
        return answer, seen


def served(
    *numbers: int, front: Frontend = WEB, seconds: int = 0, hide: bool = False
) -> dict[tuple[str, str], Served]:
    behind = Behind(frozenset(BACKENDS[one] for one in numbers), hide, seconds)
    return {("default", f"{front.protocol}-{front.port}"): Served({front: behind}, frozenset())}


def start(library: nft.Nft, wanted: dict[tuple[str, str], Served]) -> Rules:
    rules = Rules("10.96.0.0/12")
    rules.update(wanted)
    mend(library, rules)
    return rules


def read(library: nft.Nft) -> ruleset.Table:
    return ruleset.parse(library.listing(f"table {ruleset.WHERE}"))


def mend(library: nft.Nft, rules: Rules) -> ruleset.Changes:
    changes = rules.repair(read(library))
    if changes:
        library.run(ruleset.script(changes))
        rules.table.carry_out(changes)
    return changes


def change(library: nft.Nft, rules: Rules, changed: dict[tuple[str, str], Served]) -> None:
    changes = rules.update(changed)
    library.run(ruleset.script(changes))
    rules.table.carry_out(changes)


FRONTS = st.builds(
    Frontend,
    st.one_of(st.just(NODE), st.ip_addresses(v=4).map(str)),
    st.sampled_from(("tcp", "udp", "sctp")),
    st.integers(1, 65535),
)
BEHIND = st.builds(
    Behind,
    st.frozensets(
        st.builds(Backend, st.ip_addresses(v=4).map(str), st.integers(1, 65535)), max_size=5
    ),
    st.booleans(),
    st.sampled_from((0, 1, 10800, 86400)),
)
SERVED = st.builds(
    Served,
    st.dictionaries(FRONTS, BEHIND, max_size=4),
    st.frozensets(st.ip_addresses(v=4).map(str), max_size=2),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SERVED, min_size=1, max_size=3))
def test_what_is_written_is_read_again(library: nft.Nft, steps: list[Served]) -> None:
    library.run("flush ruleset")
    rules = start(library, {})
    for step in steps:
        changes = rules.update({("a", "b"): step})
        if changes:
            library.run(ruleset.script(changes))
            rules.table.carry_out(changes)
        assert read(library) == rules.table


def test_a_connection_goes_to_any_endpoint(library: nft.Nft, servers: None) -> None:
    rules = start(library, served(0, 1, 2))
    found = Counter(ask("10.96.0.7", 80) for _ in range(60))
    assert {answer for answer, _ in found} == {one.address for one in BACKENDS}
    assert {seen for _, seen in found} == {"10.9.1.254"}
    change(library, rules, served(1))
    assert {ask("10.96.0.7", 80)[0] for _ in range(10)} == {"10.9.1.2"}


def test_without_endpoints_it_is_refused_at_once(library: nft.Nft, servers: None) -> None:
    start(library, served())
    with pytest.raises(ConnectionRefusedError):
        ask("10.96.0.7", 80)
    # Another port of it, and an address that is nobody's.
    for address, port in (("10.96.0.7", 81), ("10.96.9.9", 80)):
        with pytest.raises(ConnectionRefusedError):
            ask(address, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("10.96.0.7", 53))
        # To who sends from the node itself the kernel says it even earlier.
        with pytest.raises((PermissionError, ConnectionRefusedError)):
            client.send(b"?")
            client.recv(9)


def test_a_client_stays_with_its_endpoint_until_that_goes(library: nft.Nft, servers: None) -> None:
    rules = start(library, served(0, 1, 2, seconds=60))
    first = {ask("10.96.0.7", 80)[0] for _ in range(20)}
    assert len(first) == 1
    (own,) = (at for at, one in enumerate(BACKENDS) if {one.address} == first)
    others = [at for at in range(3) if at != own]
    change(library, rules, served(*others, seconds=60))
    listing = library.listing(f"map {ruleset.WHERE} tcp-affinity")
    strays = rules.strays(ruleset.clients(listing))
    assert len(strays) == 1
    library.run(ruleset.script(ruleset.Changes(removed=dict.fromkeys(strays))))
    then = {ask("10.96.0.7", 80)[0] for _ in range(20)}
    assert len(then) == 1 and then != first


def test_a_port_of_the_node_is_for_its_own_addresses_only(library: nft.Nft, servers: None) -> None:
    start(library, served(0, front=Frontend(NODE, "tcp", 30080), seconds=60, hide=True))
    assert ask("10.9.1.254", 30080)[0] == "10.9.1.1"
    assert ask("10.9.1.254", 30080)[0] == "10.9.1.1"
    with pytest.raises(ConnectionRefusedError):
        # Somebody else's port of the same number.
        ask("10.9.1.2", 30080)
    with pytest.raises(ConnectionRefusedError):
        ask("127.0.0.1", 30080)


def test_one_port_for_both_protocols_and_flows_that_are_forgotten(
    library: nft.Nft, servers: None
) -> None:
    dns = Frontend("10.96.0.7", "udp", 80)
    rules = start(library, served(0) | served(1, front=dns))
    assert ask("10.96.0.7", 80)[0] == "10.9.1.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.connect(("10.96.0.7", 80))

        def say() -> str:
            client.send(b"?")
            return client.recv(99).decode().split()[0]

        assert say() == "10.9.1.2"
        changes = rules.update(served(2, front=dns))
        flows = rules.moved(changes)
        assert list(flows) == [dns]
        library.run(ruleset.script(changes))
        rules.table.carry_out(changes)
        # The flow that there was goes where it went.
        assert say() == "10.9.1.2"
        assert conntrack.forget(flows) == 1
        assert say() == "10.9.1.3"


@pytest.mark.parametrize(
    "harm",
    [
        "flush ruleset",
        "delete table ip kcore",
        "flush chain ip kcore prerouting",
        "flush map ip kcore tcp-endpoints",
        "delete element ip kcore tcp-services { 10.96.0.7 . 80 }",
        "add element ip kcore tcp-endpoints { 10.96.0.7 . 80 . 9 : 192.0.2.1 . 1 }",
        "add element ip kcore tcp-services { 10.96.0.99 . 80 : goto refuse }",
        "insert rule ip kcore tcp-new drop",
    ],
)
def test_what_others_do_to_it_is_seen_and_mended(library: nft.Nft, harm: str) -> None:
    rules = start(library, served(0, 1, seconds=60) | served(2, front=Frontend(NODE, "udp", 30053)))
    good = read(library)
    with contextlib.closing(nft.Watch(ruleset.TABLE)) as watch:
        library.run(harm)
        assert watch.transactions() == 1
        assert mend(library, rules)
        assert watch.transactions() == 1
    assert read(library) == good
    assert not mend(library, rules)


def test_a_restart_changes_nothing(library: nft.Nft) -> None:
    wanted = served(0, 1, 2)
    rules = start(library, wanted)
    change(library, rules, served(0, 2))
    again = Rules("10.96.0.0/12")
    again.update(served(0, 2))
    assert not mend(library, again)


def test_a_table_of_another_version_is_made_anew(library: nft.Nft) -> None:
    library.run("add table ip kcore; add map ip kcore tcp-services { type mark : verdict; }")
    start(library, served(0))
    assert ("tcp-services", "10.96.0.7 . 80") in read(library).elements


def test_what_is_wrong_changes_nothing_and_is_said(library: nft.Nft) -> None:
    start(library, served(0))
    good = read(library)
    with pytest.raises(nft.NftError, match="No such file"):
        library.run(
            "delete element ip kcore tcp-services { 10.96.0.7 . 80 }\n"
            "delete element ip kcore tcp-services { 10.96.0.8 . 80 }\n"
        )
    assert read(library) == good
    assert library.listing("table ip nothing") == ""


def test_other_tables_are_left_alone(library: nft.Nft) -> None:
    library.run("add table ip theirs; add chain ip theirs c; add rule ip theirs c accept")
    rules = start(library, served(0))
    change(library, rules, served(1))
    with contextlib.closing(nft.Watch(ruleset.TABLE)) as watch:
        # Nor is anything of theirs looked at.
        library.run("add rule ip theirs c drop; flush chain ip theirs c")
        library.run("add rule ip theirs c accept")
        assert watch.transactions() == 0
        change(library, rules, served(0))
        assert watch.transactions() == 1
    assert "accept" in library.listing("table ip theirs")


def test_closing_waits_for_whoever_is_in_it(wire: None) -> None:
    with _inside(CLIENT):
        made = nft.Nft()
    begun, ended = threading.Event(), []

    def work() -> None:
        with _inside(CLIENT), contextlib.suppress(nft.NftError):
            while True:
                made.run("add table ip kcore\ndelete table ip kcore\n")
                begun.set()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    made.close()
    thread.join(10)
    assert ended == [True]
    with pytest.raises(nft.NftError, match="closed"):
        made.run("add table ip kcore\n")
