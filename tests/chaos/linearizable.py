"""P7: reads and commits are linearizable, and guards hold.

Without faults, then while replies are lost and the server is stopped and goes on. At the end many
clients count up one object, each guarded by what it read: no count may be lost.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.client import channel
from kcore.wire.errors import ApiError, Reason
from tests.chaos import witness, workload
from tests.chaos.backing import Backing, Tail
from tests.chaos.proof import Proof
from tests.chaos.server import Server
from tests.chaos.wire import Wire
from tests.chaos.workload import Workload

# Shorter than some stops, longer than others.
_DEADLINE_SECONDS = 0.5


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    operations: int,
    counters: int = 16,
    increments: int = 100,
) -> Proof:
    """Half of the operations happen in peace."""
    proof = Proof("P7", "reads and commits are linearizable, guards hold")
    server = Server(root, backing.arguments(), mutant)
    front = str(root / "wire.sock")
    clients = Workload(front, seed, deadline_seconds=_DEADLINE_SECONDS)
    try:
        server.start()
        await server.serving()
        async with (
            Wire(front, str(server.place.socket)) as wire,
            workload.dialled(front) as api,
            Tail(backing, server) as tail,
        ):
            await workload.make_space(api)
            stops = await _storm(server, wire, clients, operations)
            quiet = asyncio.timeout(400)
            async with quiet:
                counted, tries = await _count(front, counters, increments)
            log = await tail.catch_up()
        server.stop()
    finally:
        server.close()
    proof.count("acknowledged", clients.history.acknowledged(), operations)
    proof.count("written", clients.history.written(), operations // 10)
    unknown = sum(one.outcome.value == "unknown" for one in clients.history.writes)
    proof.count("unknown", unknown)
    proof.count("cuts", wire.cuts, 2)
    proof.count("stops", stops, 1)
    proof.count(f"{counters} x {increments} guarded increments", counted)
    if counted != counters * increments:
        proof.broken.append(f"{counters * increments} increments made {counted}")
    proof.count("refused by guards", tries - counted, 1)
    proof.complain(clients.complaints)
    proof.complain(witness.check(log, clients.history, workload.MANAGER))
    return proof


async def _storm(server: Server, wire: Wire, clients: Workload, operations: int) -> int:
    """The workload, in peace and then under faults; how often the server was stopped."""
    draw = random.Random(f"{clients.seed}/faults")
    stops = 0
    done = False

    async def disturb() -> None:
        nonlocal stops, done
        while clients.history.acknowledged() < operations // 2:
            server.check()
            await asyncio.sleep(0.01)
        number = 0
        while clients.history.acknowledged() < operations or number < 3:
            server.check()
            await asyncio.sleep(draw.uniform(0.1, 0.6))
            number += 1
            if number % 3:
                # For a while the requests arrive and the replies do not.
                wire.mute = True
                await asyncio.sleep(draw.uniform(0.0, 0.05))
                wire.cut()
            else:
                stops += 1
                server.pause()
                await asyncio.sleep(draw.choice((0.1, 0.3, 0.8)))
                server.resume()
        done = True

    until: Callable[[], bool] = lambda: done  # noqa: E731
    await workload.all_of(
        [
            disturb(),
            *(clients.write(str(n), until) for n in range(8)),
            *(clients.read(str(n), until) for n in range(6)),
        ]
    )
    return stops


async def _count(socket: str, counters: int, increments: int) -> tuple[int, int]:
    """Everybody counts up one object; what it says at last, and how often it was tried."""
    ref = pb.Ref(kind=workload.KIND, namespace=workload.SPACE, name="count")
    tries = 0

    def counting(value: int) -> bytes:
        made = config_map_pb2.ConfigMap(data={"n": str(value)})
        made.metadata.name, made.metadata.namespace = ref.name, ref.namespace
        return made.SerializeToString()

    async def one(api: channel.Channel) -> None:
        nonlocal tries
        left = increments
        while left:
            got = await api.get(pb.GetRequest(ref=ref))
            known = config_map_pb2.ConfigMap.FromString(got.object)
            transaction = pb.Transaction(manager="setting")
            guard = int(known.metadata.resource_version)
            transaction.guards.add(ref=ref, revision=guard)
            transaction.operations.add(ref=ref, update=counting(int(known.data["n"]) + 1))
            tries += 1
            try:
                await api.commit(pb.CommitRequest(transactions=[transaction]))
                left -= 1
            except ApiError as error:
                if error.reason is not Reason.CONFLICT:
                    raise

    async with workload.dialled(socket) as api:
        operation = pb.Operation(ref=ref, create=counting(0))
        await api.commit(pb.CommitRequest(transactions=[pb.Transaction(operations=[operation])]))
        await workload.all_of(one(api) for _ in range(counters))
        final = (await api.get(pb.GetRequest(ref=ref))).object
    return int(config_map_pb2.ConfigMap.FromString(final).data["n"]), tries
