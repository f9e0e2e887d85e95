"""The apiserver's figures: commits, gets, lists, fan-out; over its Unix socket, on SQLite.

The server is a process of its own (`kcore apiserver`), so is the echo server that is its floor.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from bench import floor
from bench.figure import Figure

KIND = config_map_pb2.ConfigMap.DESCRIPTOR.full_name
OBJECT_BYTES = 2_000
SECONDS = 5.0
# Where names are put into prepared requests; as long as they are.
_PLACE = "CNNTTTTT"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


class Client:
    """The verbs over one channel, as bare as they get."""

    def __init__(self, socket: Path) -> None:
        """One connection of its own."""
        self.channel = grpc.aio.insecure_channel(f"unix:{socket}", options=OPTIONS)
        self.get = self._unary("Get", pb.GetResponse)
        self.list = self._unary("List", pb.ListResponse)
        self.commit = self._unary("Commit", pb.CommitResponse)
        self.commit_bytes = self.channel.unary_unary("/kcore.api.v1.ApiService/Commit")
        self.watch = self.channel.unary_stream(
            "/kcore.api.v1.ApiService/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )

    def _unary(self, name: str, answer: Any) -> Callable[..., Any]:
        return self.channel.unary_unary(
            f"/kcore.api.v1.ApiService/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )


def config_map(name: str, text: str) -> bytes:
    """An object of about OBJECT_BYTES."""
    made = config_map_pb2.ConfigMap(data={"text": text * (OBJECT_BYTES // len(text))})
    made.metadata.name = name
    made.metadata.namespace = "default"
    return made.SerializeToString()


def create(name: str) -> pb.Transaction:
    """A transaction that makes one."""
    ref = pb.Ref(kind=KIND, namespace="default", name=name)
    operation = pb.Operation(ref=ref, create=config_map(name, "x"))
    return pb.Transaction(operations=[operation])


def update(name: str, text: str) -> pb.Transaction:
    """A transaction that changes one."""
    ref = pb.Ref(kind=KIND, namespace="default", name=name)
    return pb.Transaction(operations=[pb.Operation(ref=ref, update=config_map(name, text))])


@asynccontextmanager
async def process(*command: str, ready: Callable[[], bool]) -> AsyncIterator[int]:
    """A server for as long as it is needed; answers its process id."""
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if ready():
                break
            await asyncio.sleep(0.05)
        yield run.pid
    finally:
        run.terminate()
        run.wait()


@asynccontextmanager
async def servers(root: Path) -> AsyncIterator[tuple[Path, Path, int]]:
    """Sockets of kcore's apiserver and of the echo server, and the apiserver's process id."""
    from kcore.boot import certificates, place
    from kcore.chance import Chance
    from kcore.clock import SystemClock

    where = place.Place.under(root)
    where.make()
    certificates.ensure(where.pki, where.ca, "bench", SystemClock(), Chance())
    echo = root / "echo.sock"
    server = (sys.executable, "-m", "kcore", "apiserver", "--node", "bench")
    server += ("--root", str(root), "--port", "26443")
    async with (
        process(*server, ready=where.socket.exists) as pid,
        process(sys.executable, "-m", "bench.floor", str(echo), ready=echo.exists),
    ):
        await asyncio.sleep(0.5)
        yield where.socket, echo, pid


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def figures(root: Path) -> list[Figure]:
    """All of them."""
    async with servers(root) as (socket, echo, pid):
        client, floor_channel = Client(socket), grpc.aio.insecure_channel(f"unix:{echo}")
        found = [*await _commits(client, floor_channel, root), *await _gets(client, floor_channel)]
        found.append(await _list(client, floor_channel))
        found += await _fan_out(socket, floor_channel, pid, connections=10, watchers=1000)
        found += await _idle(pid)
        return found


async def _commits(client: Client, echo: grpc.aio.Channel, root: Path) -> list[Figure]:
    unary = echo.unary_unary(floor.ECHO)
    body = bytes(OBJECT_BYTES)
    value = config_map("floor", "x")
    found = []
    for clients, batch in ((1, 1), (32, 1), (8, 64)):
        label = f"{clients} client{'s' if clients > 1 else ''}, {batch} a commit"

        # Prepared, so that the client, on the same two cores, does as little as the echo's.
        names = [f"{_PLACE}-{clients}-{one}" for one in range(batch)]
        prepared = pb.CommitRequest(transactions=[create(name) for name in names])
        request = prepared.SerializeToString()
        refused = 0

        async def commit(number: int, turn: int, request: bytes = request) -> object:
            nonlocal refused
            stem = f"c{number:02}{turn:05}".encode()
            answer = await client.commit_bytes(request.replace(_PLACE.encode(), stem))
            refused += turn == 0 and any(
                one.HasField("error") for one in pb.CommitResponse.FromString(answer).results
            )
            return answer

        value_rate = await floor.rate(commit, clients, SECONDS) * batch
        assert not refused
        together = min(64, clients * batch)
        raw = floor.sqlite_rate(root, together, value, SECONDS / 2)
        found.append(
            Figure(f"creates, {label}", value_rate, "/s", f"SQLite, {together} a transaction", raw)
        )
        if batch == 1:

            async def call(number: int, turn: int) -> object:
                return await unary(body)

            bare = await floor.rate(call, clients, SECONDS / 2)
            found.append(Figure(f"creates, {label}", value_rate, "/s", "empty echo", bare))
    return found


async def _gets(client: Client, echo: grpc.aio.Channel) -> list[Figure]:
    await client.commit(pb.CommitRequest(transactions=[create("got")]))
    unary = echo.unary_unary(floor.ECHO)
    request = pb.GetRequest(ref=pb.Ref(kind=KIND, namespace="default", name="got"))
    body = bytes(OBJECT_BYTES)
    found = []
    for clients in (1, 32):

        async def get(number: int, turn: int) -> object:
            return await client.get(request)

        async def call(number: int, turn: int) -> object:
            return await unary(body)

        value = await floor.rate(get, clients, SECONDS)
        bare = await floor.rate(call, clients, SECONDS)
        label = f"gets, {clients} client{'s' if clients > 1 else ''}"
        found.append(Figure(label, value, "/s", "empty echo", bare))
    return found


async def _list(client: Client, echo: grpc.aio.Channel) -> Figure:
    count = 10_000
    for start in range(0, count, 500):
        await client.commit(
            pb.CommitRequest(
                transactions=[create(f"list-{number}") for number in range(start, start + 500)]
            )
        )
    selection = pb.Selection(kind=KIND, namespace="default")
    spent, sent, pages = [], 0, 0
    for _ in range(5):
        begin, token, sent, pages, items = time.perf_counter(), "", 0, 0, 0
        while True:
            page = await client.list(pb.ListRequest(selection=selection, page_token=token))
            items += len(page.items)
            sent += page.ByteSize()
            pages += 1
            token = getattr(page.metadata, "continue")
            if not token:
                break
        assert items >= count
        spent.append((time.perf_counter() - begin) * count / items)
    stream = echo.unary_stream(floor.STREAM)
    bare = []
    for _ in range(5):
        begin = time.perf_counter()
        async for _message in stream(f"{pages} {sent // pages}".encode()):
            pass
        bare.append(time.perf_counter() - begin)
    return Figure(
        f"list of 10,000 objects of 2 KB, {pages} pages",
        sorted(spent)[2] * 1000,
        "ms",
        "the same bytes streamed",
        sorted(bare)[2] * 1000,
        more_is_better=False,
    )


async def _fan_out(
    socket: Path, echo: grpc.aio.Channel, pid: int, connections: int, watchers: int
) -> list[Figure]:
    writes = 200
    names = [f"fan-{number}" for number in range(10)]
    writer = Client(socket)
    await writer.commit(pb.CommitRequest(transactions=[create(name) for name in names]))
    clients = [Client(socket) for _ in range(connections)]
    seen = messages = 0
    all_synced, done = asyncio.Event(), asyncio.Event()
    synced = 0

    async def watch(client: Client) -> None:
        nonlocal seen, messages, synced
        selection = pb.Selection(kind=KIND, namespace="default", names=names)
        async for response in client.watch(pb.WatchRequest(selections=[selection])):
            if response.synced:
                synced += 1
                if synced == watchers:
                    all_synced.set()
                continue
            seen += len(response.events)
            messages += 1
            if seen >= writes * watchers:
                done.set()

    tasks = [asyncio.create_task(watch(clients[n % connections])) for n in range(watchers)]
    await asyncio.wait_for(all_synced.wait(), 60)
    await asyncio.sleep(1)
    begin, spent_before = time.perf_counter(), cpu_seconds(pid)
    for number in range(writes):
        # Ever another object, so that no event coalesces with one that still waits.
        await writer.commit(
            pb.CommitRequest(transactions=[update(names[number % 10], f"{number:03}")])
        )
    while not done.is_set():
        before = seen
        await asyncio.wait((asyncio.create_task(done.wait()),), timeout=10)
        if seen == before:
            break
    spent, server = time.perf_counter() - begin, cpu_seconds(pid) - spent_before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    bare_messages = 20_000
    begin = time.perf_counter()
    bare = echo.unary_stream(floor.STREAM)(f"{bare_messages} {OBJECT_BYTES}".encode())
    async for _message in bare:
        pass
    bare_rate = bare_messages / (time.perf_counter() - begin)
    label = f"200 writes to {watchers:,} watchers over {connections} connections"
    percent, together = 100 * seen / (writes * watchers), seen / max(messages, 1)
    return [
        Figure(
            f"{label} ({percent:.0f} % delivered singly, {together:.1f} a message)",
            seen / spent,
            "events/s",
            "a bare stream, one event a message",
            bare_rate,
        ),
        Figure(
            f"{label}: the apiserver's processor",
            server / seen * 1e6,
            "us an event",
            "target",
            15,
            more_is_better=False,
        ),
    ]


async def _idle(pid: int) -> list[Figure]:
    await asyncio.sleep(2)
    before = cpu_seconds(pid)
    await asyncio.sleep(10)
    spent = (cpu_seconds(pid) - before) / 10
    return [
        Figure(
            "apiserver at rest with 20,000 objects: processor",
            max(spent * 100, 0.01),
            "% of a core",
            "kube-apiserver's code, published",
            1.9,
            more_is_better=False,
        ),
        Figure(
            "apiserver at rest with 20,000 objects: memory",
            resident_bytes(pid) / 2**20,
            "MiB",
            "kube-apiserver's code with 21,000, published",
            1.9 * 1024,
            more_is_better=False,
        ),
    ]
