"""P1: what was acknowledged is there after any crash."""

import asyncio
import random
import statistics
from collections.abc import Callable
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.coordination.v1 import lease_pb2

from kcore.wire.errors import ApiError, Reason
from tests.chaos import witness, workload
from tests.chaos.backing import Backing
from tests.chaos.proof import Proof
from tests.chaos.server import Server
from tests.chaos.workload import Watcher, Workload

LEASE = lease_pb2.Lease.DESCRIPTOR.full_name


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    kills: int,
    acknowledged: int,
    between: int = 200,
) -> Proof:
    """`between`: operations acknowledged between two kills, at least."""
    proof = Proof("P1", "what was acknowledged is there after any crash")
    server = Server(root, backing.arguments(), mutant)
    draw = random.Random(f"{seed}/kills")
    clients = Workload(str(server.place.socket), seed)
    watchers = [
        Watcher(clients.socket, random.Random(f"{seed}/{n}"), clients.complaints) for n in range(2)
    ]
    done = False
    try:
        server.start()
        await server.serving()
        async with workload.dialled(clients.socket) as api:
            await workload.make_space(api)
        fewest = acknowledged
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(one.follow()) for one in watchers]
            renewing = group.create_task(_renew(clients.socket, lambda: done, proof))
            for number in range(8):
                group.create_task(clients.write(str(number), lambda: done))
            for number in range(2):
                group.create_task(clients.read(str(number), lambda: done))
            for kill in range(1, kills + 1):
                had = clients.history.acknowledged()
                goal = max(between, (acknowledged * kill) // kills - had)
                while clients.history.acknowledged() - had < goal:
                    server.check()
                    await asyncio.sleep(0.01)
                # Nobody knows where in a write it is now.
                await asyncio.sleep(draw.random() * 0.05)
                fewest = min(fewest, clients.history.acknowledged() - had)
                await asyncio.to_thread(server.kill)
                server.start()
                await server.serving()
            had = clients.history.acknowledged()
            while clients.history.acknowledged() - had < between:
                server.check()
                await asyncio.sleep(0.01)
            done = True
            await renewing
            head = await _settled(clients.socket, watchers)
            for task in following:
                task.cancel()
        proof.complain(await _shows(clients, head))
        server.stop()
        log = await _stored(backing, server)
    finally:
        server.close()
    proof.count("kills", kills)
    proof.count("acknowledged", clients.history.acknowledged(), acknowledged)
    proof.count("fewest between kills", fewest, between)
    unknown = sum(one.outcome.value == "unknown" for one in clients.history.writes)
    proof.count("unknown", unknown)
    events, complaints = workload.told(watchers, log)
    proof.complain(complaints)
    proof.count("events checked", events, 0 if complaints else acknowledged // 10)
    restarts = sorted(server.starts[1:])
    proof.figures["restart to serving"] = (
        f"{statistics.median(restarts):.2f} s median, {restarts[-1]:.2f} s longest"
    )
    # On a machine that others share, it is this that tells.
    proof.bound("of the processor's time, at most", max(server.worked[1:]), 2.0, "s")
    proof.complain(clients.complaints)
    renewals = renewing.result()
    proof.count("lease renewals", renewals, 1)
    others = [one for one in log if one.key.kind != LEASE]
    proof.complain(witness.check(others, clients.history, workload.MANAGER, trimmed=renewals))
    return proof


async def _stored(backing: Backing, server: Server):  # type: ignore[no-untyped-def]
    """The whole log, by the store itself, which verifies it."""
    store = backing.store(server)
    try:
        await store.open()
        return [one async for one in store.replay()]
    finally:
        await store.close()


async def _settled(socket: str, watchers: list[Watcher]) -> int:
    """The head, when all watchers have been told of it."""
    async with workload.dialled(socket) as api:
        answer = await api.list(pb.ListRequest(selection=pb.Selection(kind=workload.KIND)))
    head = int(answer.metadata.resource_version)
    for _ in range(400):
        if all(one.mark() >= head for one in watchers):
            return head
        await asyncio.sleep(0.05)
    raise AssertionError(f"marks {[one.mark() for one in watchers]} did not reach {head}")


async def _shows(clients: Workload, head: int) -> list[str]:
    """One more look at everything, to be held against the log."""
    had = len(clients.history.reads)
    async with workload.dialled(clients.socket) as api:
        await clients._look(api, None, None)
    seen = clients.history.reads[had].revision
    return [] if seen >= head else [f"the head went from {head} to {seen}"]


async def _renew(socket: str, until: Callable[[], bool], proof: Proof) -> int:
    """A lease that keeps no history: its count never goes back. How often it was renewed."""
    acknowledged = sent = 0
    async with workload.dialled(socket) as api:
        while not until():
            sent += 1
            lease = lease_pb2.Lease()
            lease.metadata.name, lease.metadata.namespace = "chaos", workload.SPACE
            lease.spec.lease_transitions = sent
            operation = pb.Operation(ref=pb.Ref(kind=LEASE))
            operation.apply.object = lease.SerializeToString()
            operation.apply.force = True
            transaction = pb.Transaction(operations=[operation], manager="setting")
            try:
                await api.commit(pb.CommitRequest(transactions=[transaction]))
                acknowledged = sent
                ref = pb.Ref(kind=LEASE, namespace=workload.SPACE, name="chaos")
                got = (await api.get(pb.GetRequest(ref=ref))).object
                count = lease_pb2.Lease.FromString(got).spec.lease_transitions
                if not acknowledged <= count <= sent:
                    proof.broken.append(f"the lease says {count}, {acknowledged} was acknowledged")
            except ApiError as error:
                if error.reason is not Reason.UNAVAILABLE:
                    proof.broken.append(f"renewing: {error!r}")
                    if error.reason is Reason.REFUSED:
                        return sent
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.05)
    return sent
