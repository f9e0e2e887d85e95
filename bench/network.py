"""Services: how long rules take to be there, however many there are, and what packets pay for them.

The table is measured in a network namespace of its own, beside the program `nft` making the same
change; connections beside the same ones made straight to the endpoint, in turns; and the way from a
pod that is ready to the rules of every node in a lab of three nodes.
"""

import asyncio
import contextlib
import ctypes
import json
import resource
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import pod_pb2

from bench.api import Client
from bench.figure import Figure, median
from kcore.proxy import nft, ruleset
from kcore.proxy.frontend import Backend, Behind, Frontend, Served
from kcore.proxy.rules import Rules

SIZES = (1_000, 10_000)
ENDPOINTS = 3
CHANGES = 500
CONNECTIONS, TURNS = 1_000, 5
STREAM_SECONDS = 1.0
PODS = 20
HERE, THERE = "kcore-bench-here", "kcore-bench-there"
DIRECT, WEB = ("10.9.1.1", 8080), ("10.111.0.1", 80)
_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


async def figures(root: Path) -> list[Figure]:
    """The table, connections, and the way from a pod to the rules."""
    found = await asyncio.to_thread(_tables)
    return [*found, *await _propagation(root, found[0].value)]


@contextlib.contextmanager
def _inside(path: Path) -> Iterator[None]:
    """This thread is in another network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as old, path.open() as new:
        if libc.setns(new.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(old.fileno(), _CLONE_NEWNET)


def _space(name: str) -> Path:
    return Path("/run/netns") / name


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True)


def _service(number: int, *backends: int) -> tuple[tuple[str, str], Served]:
    front = Frontend(
        f"10.{96 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}", "tcp", 80
    )
    some = [Backend(f"10.244.{one // 250 % 250}.{one % 250 + 1}", 8080) for one in backends]
    return ("default", f"s{number}"), Served({front: Behind(frozenset(some))}, frozenset())


def _tables() -> list[Figure]:
    for name in (HERE, THERE):
        _ip("netns", "delete", name, check=False)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    try:
        found = []
        with _inside(_space(HERE)):
            for size in SIZES:
                found += _table(size)
            found += _packets()
        return found
    finally:
        for name in (HERE, THERE):
            _ip("netns", "delete", name, check=False)


def _spent(work: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds of the wall and of the processor."""
    begun, used = time.perf_counter(), _processor()
    answer = work()
    return time.perf_counter() - begun, _processor() - used, answer


def _processor() -> float:
    found = resource.getrusage(resource.RUSAGE_THREAD)
    return found.ru_utime + found.ru_stime


def _table(size: int) -> list[Figure]:
    """All at once, then one change at a time, in a table of this size."""
    rules = Rules("10.96.0.0/12")
    wanted = dict(_service(one, one, one + 1, one + 2) for one in range(size))
    with nft.Nft() as library:
        library.run("flush ruleset")

        def everything() -> None:
            rules.update(wanted)
            changes = rules.repair(ruleset.parse(library.listing(f"table {ruleset.WHERE}")))
            library.run(ruleset.script(changes))
            rules.table.carry_out(changes)

        begun, all_processor, _ = _spent(everything)

        def change(number: int, *backends: int) -> None:
            name, served = _service(number, *backends)
            changes = rules.update({name: served})
            library.run(ruleset.script(changes))
            rules.table.carry_out(changes)

        # An endpoint is replaced; the first few make what is made once.
        walls, used = [], _processor()
        for turn in range(CHANGES):
            one = turn * (size // CHANGES)
            spent = _spent(lambda one=one, turn=turn: change(one, one, one + 1, 50_000 + turn))
            walls.append(spent[0])
        used = (_processor() - used) / CHANGES
        look, _, _ = _spent(
            lambda: rules.repair(ruleset.parse(library.listing(f"table {ruleset.WHERE}")))
        )
        script = "\n".join(
            (
                f"delete element {ruleset.WHERE} tcp-endpoints {{ 10.96.0.1 . 80 . 0 }}",
                f"add element {ruleset.WHERE} tcp-endpoints "
                "{ 10.96.0.1 . 80 . 0 : 10.244.9.9 . 1 }",
            )
        )
        spawned = []
        for _ in range(10):
            begin = time.perf_counter()
            subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True)
            spawned.append(time.perf_counter() - begin)
    print(
        f"{size} services: all {begun:.2f} s ({all_processor:.2f} s of processor), "
        f"a change {median(walls) * 1e3:.2f} ms ({used * 1e3:.2f} ms), "
        f"a look at all {look:.2f} s, "
        f"resident {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB at most",
        file=sys.stderr,
    )
    with_all = f"{size:,} services of {ENDPOINTS} endpoints"
    return [
        Figure(
            f"one endpoint replaced, among {with_all}",
            median(walls) * 1e3,
            "ms",
            "the program nft, one element",
            median(spawned) * 1e3,
            more_is_better=False,
        ),
        Figure(
            f"all rules of {with_all}",
            begun,
            "s",
            "one change for each, as above",
            median(walls) * size,
            more_is_better=False,
        ),
    ]


def _packets() -> list[Figure]:
    """Connections and a stream, through a service among ten thousand and straight, in turns."""
    _ip("-n", HERE, "link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", THERE)
    _ip("-n", HERE, "address", "add", "10.9.1.254/24", "dev", "v0")
    _ip("-n", THERE, "address", "add", "10.9.1.1/24", "dev", "v1")
    _ip("-n", HERE, "link", "set", "v0", "up")
    _ip("-n", THERE, "link", "set", "v1", "up")
    _ip("-n", HERE, "route", "add", "default", "via", "10.9.1.1")
    rules = Rules("10.96.0.0/12")
    wanted = dict(_service(one, one, one + 1, one + 2) for one in range(SIZES[-1]))
    front = Frontend(WEB[0], "tcp", WEB[1])
    wanted["default", "web"] = Served({front: Behind(frozenset([Backend(*DIRECT)]))}, frozenset())
    with nft.Nft() as library, _inside(_space(THERE)):
        server = socket.create_server(("", DIRECT[1]), backlog=512)
    threading.Thread(target=_serve, args=(server,), daemon=True).start()
    with nft.Nft() as library:
        library.run("flush ruleset")
        rules.update(wanted)
        library.run(ruleset.script(rules.repair(ruleset.Table())))
    found: dict[str, dict[tuple[str, int], list[float]]] = {"connect": {}, "stream": {}}
    for _ in range(TURNS):
        for to in (DIRECT, WEB):
            found["connect"].setdefault(to, []).append(_connect(to))
            found["stream"].setdefault(to, []).append(_stream(to))
    server.close()
    return [
        Figure(
            f"a connection through a service, among {SIZES[-1]:,}",
            median(found["connect"][WEB]) * 1e6,
            "us",
            "straight to the endpoint",
            median(found["connect"][DIRECT]) * 1e6,
            more_is_better=False,
        ),
        Figure(
            "a stream through a service",
            median(found["stream"][WEB]) / 1e9,
            "GB/s",
            "straight to the endpoint",
            median(found["stream"][DIRECT]) / 1e9,
        ),
    ]


def _serve(server: socket.socket) -> None:
    buffer = bytearray(1 << 20)
    while True:
        try:
            one, _ = server.accept()
        except OSError:
            return
        with one, contextlib.suppress(OSError):
            one.sendall(b"!")
            while one.recv_into(buffer):
                pass


def _connect(to: tuple[str, int]) -> float:
    begun = time.perf_counter()
    for _ in range(CONNECTIONS):
        with socket.create_connection(to, 5) as one:
            one.recv(1)
    return (time.perf_counter() - begun) / CONNECTIONS


def _stream(to: tuple[str, int]) -> float:
    data, sent = bytes(1 << 18), 0
    with socket.create_connection(to, 5) as one:
        begun = time.perf_counter()
        while time.perf_counter() - begun < STREAM_SECONDS:
            one.sendall(data)
            sent += len(data)
        return sent / (time.perf_counter() - begun)


async def _propagation(root: Path, change_ms: float) -> list[Figure]:
    """From a pod that is seen to be ready to its element in every node's kernel."""
    place = ("--root", str(root / "lab"), "--name", "bench")
    try:
        await _kcore("lab", "up", "3", *place, "--network", "59")
        client = Client(root / "lab" / "0" / "run" / "kcore.sock")
        watchers = [_Kernel(_space(f"kcore-bench-{number}")) for number in (1, 2, 3)]
        spent = await _pods(client, watchers)
        for one in watchers:
            one.stop()
    finally:
        await _kcore("lab", "down", *place)
        shutil.rmtree(root, ignore_errors=True)
    print("pods, one after another, ms:", *(round(one * 1e3) for one in spent), file=sys.stderr)
    return [
        Figure(
            f"pod seen Ready to the rules of all three nodes, {name} of {len(spent)}",
            value * 1e3,
            "ms",
            "the change of the rule alone",
            change_ms,
            more_is_better=False,
        )
        for name, value in (("median", median(spent)), ("worst", max(spent)))
    ]


async def _kcore(*words: str) -> None:
    command = [sys.executable, "-m", "kcore", *words]
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)


class _Kernel:
    """When which endpoint came to be in the table of one node."""

    def __init__(self, space: Path) -> None:
        self.seen: dict[str, float] = {}
        self._space = space
        self._ended = False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._thread.join()

    def _follow(self) -> None:
        with (
            _inside(self._space),
            nft.Nft() as library,
            contextlib.closing(nft.Watch(ruleset.TABLE)) as watch,
        ):
            while not self._ended:
                if not select.select([watch.fileno()], [], [], 0.2)[0]:
                    continue
                now = time.perf_counter()
                watch.transactions()
                listing = library.listing(f"map {ruleset.WHERE} tcp-endpoints")
                for one in json.loads(listing)["nftables"] if listing else ():
                    for _, value in one.get("map", {}).get("elem", ()):
                        self.seen.setdefault(value["concat"][0], now)


async def _pods(client: Client, watchers: list[_Kernel]) -> list[float]:
    """One pod after another behind one service; the seconds of each."""
    await _create(client, "kcore.core.v1.Service", "web", _web())
    selection = pb.Selection(kind=pod_pb2.Pod.DESCRIPTOR.full_name, namespace="default")
    ready: dict[str, float] = {}

    async def follow() -> None:
        async for response in client.watch(pb.WatchRequest(selections=[selection], progress_ms=50)):
            now = time.perf_counter()
            for event in response.events:
                pod = pod_pb2.Pod.FromString(event.object)
                if any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions):
                    ready.setdefault(pod.status.pod_ip, now)

    following = asyncio.ensure_future(follow())
    try:
        for number in range(PODS):
            pod = pod_pb2.Pod()
            pod.metadata.name, pod.metadata.namespace = f"p{number}", "default"
            pod.metadata.labels["app"] = "web"
            pod.spec.containers.add(
                name="main", image="kcore.local/busybox:1", command=["sleep", "100000"]
            )
            await _create(client, pod_pb2.Pod.DESCRIPTOR.full_name, f"p{number}", pod)
            async with asyncio.timeout(60):
                while len(ready) <= number or any(
                    set(ready) - set(watcher.seen) for watcher in watchers
                ):
                    await asyncio.sleep(0.02)
    finally:
        following.cancel()
    return [
        max(0.0, *(watcher.seen[address] - at for watcher in watchers))
        for address, at in ready.items()
    ]


def _web() -> Any:
    from kcore_api.kcore.core.v1 import service_pb2

    made = service_pb2.Service()
    made.metadata.name, made.metadata.namespace = "web", "default"
    made.spec.selector["app"] = "web"
    made.spec.ports.add(port=80)
    return made


async def _create(client: Client, kind: str, name: str, made: Any) -> None:
    ref = pb.Ref(kind=kind, namespace="default", name=name)
    create = pb.Operation(ref=ref, create=made.SerializeToString())
    await client.commit(pb.CommitRequest(transactions=[pb.Transaction(operations=[create])]))
