"""P8: each watch is exactly the log's tail, while it is compacted and the server dies."""

import asyncio
import random
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb

from tests.chaos import witness, workload
from tests.chaos.backing import Backing, Tail
from tests.chaos.proof import Proof
from tests.chaos.server import Server
from tests.chaos.workload import Watcher, Workload


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    watchers: int,
    events: int,
    kills: int,
    retained: int,
) -> Proof:
    """Runs until so many events were told in all.

    The log is kept so short, in revisions, that readers fall behind it; the witness may not.
    """
    proof = Proof("P8", "a watch is the log's tail: nine validators")
    retention = ("--compact-seconds", "0.2", "--retain-revisions", str(retained))
    server = Server(root, [*backing.arguments(), *retention], mutant)
    clients = Workload(str(server.place.socket), seed, batch=16)
    readers = [
        Watcher(
            clients.socket,
            random.Random(f"{seed}/watcher/{n}"),
            clients.complaints,
            slow_seconds=(0.0, 0.0, 0.01, 0.1)[n % 4],
            leaves=(0.01, 0.1)[n % 2],
            returns=5 * retained,
            masked=n % 3 == 2,
        )
        for n in range(watchers)
    ]
    done = False

    def told() -> int:
        return sum(len(r.events) for one in readers for _, rs in one.streams for r in rs)

    try:
        server.start()
        await server.serving()
        async with workload.dialled(clients.socket) as api:
            await workload.make_space(api)
        async with Tail(backing, server) as tail, asyncio.TaskGroup() as group:
            following = [group.create_task(one.follow()) for one in readers]
            writing = [
                group.create_task(clients.write(str(number), lambda: done)) for number in range(8)
            ]
            group.create_task(clients.read("0", lambda: done))
            for part in range(1, kills + 2):
                while told() < events * part // (kills + 1):
                    server.check()
                    await asyncio.sleep(0.1)
                if part <= kills:
                    await asyncio.to_thread(server.kill)
                    await tail.catch_up()
                    server.start()
                    await server.serving()
            done = True
            await asyncio.wait(writing)
            head = await _all_told(clients.socket, readers)
            for task in following:
                task.cancel()
            log = await tail.catch_up()
        server.stop()
    finally:
        server.close()
    proof.count("kills", kills)
    proof.count("watchers", watchers)
    proof.count("streams", sum(len(one.streams) for one in readers), 2 * watchers)
    proof.count("pasts that were gone", sum(one.gone for one in readers), 1)
    proof.count("revisions", head)
    checked, complaints = workload.told(readers, log)
    proof.complain(complaints)
    proof.count("events checked", checked, events if not proof.broken else 0)
    proof.complain(clients.complaints)
    proof.complain(witness.check(log, clients.history, workload.MANAGER))
    return proof


async def _all_told(socket: str, readers: list[Watcher]) -> int:
    """The head, when all have been told of it, and hold what a List at that revision shows."""
    async with workload.dialled(socket) as api:
        answer = await api.list(pb.ListRequest(selection=pb.Selection(kind=workload.KIND)))
    head = int(answer.metadata.resource_version)
    for one in readers:
        # A slow one is thousands of messages behind, if these are small: now they hurry.
        one.leaves = one.slow_seconds = 0.0
    for _ in range(600):
        late = [one for one in readers if one.mark() < head]
        if not late:
            return head
        await asyncio.sleep(0.1)
    marks = [one.mark() for one in late]
    raise AssertionError(f"{len(late)} watchers were not told of revision {head}: {marks}")
