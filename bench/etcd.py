"""The log in etcd: what kcore appends a second, beside bare transactions of the same etcd.

All in one process, round by round in turns, on an etcd with its syncs; objects of 2 KB.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import kcore_api
from kcore_api.etcdserverpb import rpc_pb2
from kcore_api.kcore.api.v1 import api_pb2 as pb

from bench import api, figure
from bench.figure import Figure
from kcore import admission
from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel import kernel, schema
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store.etcd import EtcdStore
from kcore.kernel.store.etcd_client import Etcd
from tests.kernel.etcd_server import Server

ROUNDS = 3
SECONDS = 2.0
BODY = b"x" * api.OBJECT_BYTES

# Does so many at once.
Work = Callable[[int], Awaitable[None]]


async def figures(root: Path) -> list[Figure]:
    """Appends, creates through a kernel, and opening again."""
    root.mkdir(parents=True)
    server = Server(root, "--max-txn-ops=10000", "--max-request-bytes=8388608",
                    "--quota-backend-bytes=8589934592").start()  # fmt: skip
    try:
        found = [await _appends(server, batch) for batch in (1, 64)]
        for clients in (1, 64):
            found += await _creates(server, clients)
        found.append(await _restart(server))
        return found
    finally:
        server.kill()


async def _appends(server: Server, batch: int) -> Figure:
    store = server.store()
    await store.open()
    revision = 0

    async def append(count: int) -> None:
        nonlocal revision
        records = []
        for _ in range(count):
            revision += 1
            key = Key("k.A", "default", f"o{revision}")
            records.append(
                Record(revision, key, f"u{revision}", Verb.CREATE, BODY, "me", 0, float(revision))
            )
        await store.append(records, {})

    etcd = Etcd(server.endpoints())
    ours, bare = await _in_turns(batch, append, _bare(etcd, server.prefix()))
    await etcd.close()
    await store.close()
    return Figure(f"etcd: appends by {batch}", ours, "/s", f"etcd, puts by {batch} a Txn", bare)


def _bare(etcd: Etcd, prefix: str) -> Work:
    """Puts in one flat transaction each, with nothing on top."""
    numbers = itertools.count()

    async def put(count: int) -> None:
        request = rpc_pb2.TxnRequest()
        for _ in range(count):
            one = request.success.add().request_put
            one.key, one.value = f"{prefix}/{next(numbers)}".encode(), BODY
        await etcd.txn(request)

    return put


async def _creates(server: Server, clients: int) -> list[Figure]:
    """Commits of one object each, by so many at once, in the kernel's own process."""
    clock = SystemClock()
    kinds = schema.compile_schema(kcore_api.KINDS.read_bytes(), proven=True)
    table = admission.BY_KIND
    async with kernel.opened(server.store(), kinds, table, clock, Chance()) as opened:
        ref = pb.Ref(kind="kcore.core.v1.Namespace")
        first = pb.Operation(ref=ref, create=b"\x0a\x09\x0a\x07default")
        request = pb.CommitRequest(transactions=[pb.Transaction(operations=[first])])
        await opened.commit(request, "bench")
        numbers = itertools.count()

        async def create(count: int) -> None:
            async def one() -> None:
                made = api.create(f"o{next(numbers)}")
                wanted = pb.CommitRequest(transactions=[made], want=pb.WANT_NOTHING)
                await opened.commit(wanted, "bench")

            await asyncio.gather(*[one() for _ in range(count)])

        etcd = Etcd(server.endpoints())
        ours, bare = await _in_turns(clients, create, _bare(etcd, server.prefix()))
        await etcd.close()
        get = pb.GetRequest(ref=pb.Ref(kind=api.KIND, namespace="default", name="o1"))

        async def read(count: int) -> None:
            await asyncio.gather(*[opened.get(get) for _ in range(count)])

        async def bare_read(count: int) -> None:
            asked = rpc_pb2.RangeRequest(key=b"/none", count_only=True)
            await asyncio.gather(*[etcd.range(asked) for _ in range(count)])

        etcd = Etcd(server.endpoints())
        reads, bare_reads = await _in_turns(clients, read, bare_read)
        await etcd.close()
    name = f"etcd: creates through the kernel, {clients} at once"
    return [
        Figure(name, ours, "/s", f"etcd, puts by {clients} a Txn", bare),
        Figure(
            f"etcd: linearizable gets, {clients} at once",
            reads,
            "/s",
            "etcd, a Range each",
            bare_reads,
        ),
    ]


async def _restart(server: Server) -> Figure:
    """Opening a log of 10,000 batches of one, beside reading as many keys."""
    store: EtcdStore = server.store("/restart")
    await store.open()
    count = 10_000
    for revision in range(1, count + 1):
        key = Key("k.A", "default", f"o{revision % 2_000}")
        one = Record(revision, key, "u", Verb.UPDATE, BODY, "me", 0, float(revision))
        await store.append([one], {})
    begun = time.perf_counter()
    await store.open()
    read = 0
    async for _ in store.replay():
        read += 1
    ours = time.perf_counter() - begun
    assert read == count
    await store.close()
    etcd = Etcd(server.endpoints())
    begun = time.perf_counter()
    asked = rpc_pb2.RangeRequest(key=b"/restart/", range_end=b"/restart0")
    await etcd.range(asked)
    bare = time.perf_counter() - begun
    await etcd.close()
    name = f"etcd: opening a log of {count:,} batches"
    return Figure(name, ours, "s", "etcd, its 2,000 objects in one Range", bare, False)


async def _in_turns(count: int, ours: Work, bare: Work) -> tuple[float, float]:
    """Both one after another, some rounds; the median of what each does a second."""
    rates: Sequence[list[float]] = ([], [])
    for turn in range(ROUNDS):
        for which in (0, 1) if turn % 2 else (1, 0):
            work = (ours, bare)[which]
            done = 0
            begun = time.perf_counter()
            while time.perf_counter() - begun < SECONDS:
                await work(count)
                done += count
            rates[which].append(done / (time.perf_counter() - begun))
    return figure.median(rates[0]), figure.median(rates[1])
