"""A failed disk sync is an unknown outcome, never a failed one (RELIABILITY's first rule).

`strace` lets fdatasync fail with EIO: now and then, and the server must open its store again, find
out, and go on; or for ever, and it must end, or is killed, and whoever starts it next finds out.
"""

import asyncio
import random
from pathlib import Path

from tests.chaos import witness, workload
from tests.chaos.backing import Backing, Tail
from tests.chaos.history import now
from tests.chaos.proof import Proof
from tests.chaos.server import Died, Server
from tests.chaos.workload import Watcher, Workload

# A server whose disk has failed for good is given so long to end.
_END_SECONDS = 0.3


async def prove(
    root: Path,
    backing: Backing,
    mutant: str = "",
    seed: int = 1,
    *,
    operations: int,
    every: int,
    deaths: int,
) -> Proof:
    """Of so many syncs one fails, over so many writes; then the disk dies so many times."""
    proof = Proof("sync", "a failed sync is an unknown outcome")
    trace = root / "strace"
    # Compaction, too, meets the failing disk.
    retention = ("--compact-seconds", "0.1", "--retain-revisions", "150")
    server = Server(root, [*backing.arguments(), *retention], mutant)
    clients = Workload(str(server.place.socket), seed)
    watcher = Watcher(clients.socket, random.Random(seed), clients.complaints)
    draw = random.Random(f"{seed}/syncs")
    done = False
    ended = 0

    def start(when: str) -> None:
        server.wrap = [] if not when else [
            *("strace", "-A", "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync"),
            *("-e", f"inject=fdatasync:error=EIO:when={when}"),
        ]  # fmt: skip
        server.start()

    try:
        start("")
        await server.serving()
        async with workload.dialled(clients.socket) as api:
            await workload.make_space(api)
        async with Tail(backing, server) as tail, asyncio.TaskGroup() as group:
            following = group.create_task(watcher.follow())
            for number in range(4):
                group.create_task(clients.write(str(number), lambda: done))
            group.create_task(clients.read("0", lambda: done))
            server.kill()
            start(f"{every}+{every}")
            await _written(server, clients, operations)
            for _ in range(deaths):
                server.kill()
                had = _failures(trace)
                start(f"{draw.randint(20, 60)}+1")
                ended += await _dies(server, trace, had)
            server.kill()
            start("")
            await _written(server, clients, 20)
            done = True
            await asyncio.sleep(0.3)
            following.cancel()
        log = await tail.catch_up()
        server.stop()
    finally:
        server.close()
    proof.count("written", clients.history.written(), operations)
    proof.count("syncs that failed", _failures(trace), operations // every // 4)
    proof.count("disks that died", deaths)
    proof.count("servers that ended by themselves", ended)
    doubts = sum("may have been applied" in one.said for one in clients.history.writes)
    proof.count("writes in doubt", doubts, 0 if mutant else 1)
    events, complaints = workload.told([watcher], log)
    proof.count("events checked", events, 1)
    proof.complain(complaints)
    proof.complain(clients.complaints)
    proof.complain(witness.check(log, clients.history, workload.MANAGER))
    return proof


async def _written(server: Server, clients: Workload, number: int) -> None:
    goal, begun = clients.history.written() + number, now()
    while clients.history.written() < goal:
        server.check()
        assert now() - begun < 120, "it does not get on"
        await asyncio.sleep(0.02)


async def _dies(server: Server, trace: Path, had: int) -> bool:
    """Waits until the disk has failed; whether the server has ended of it."""
    begun = now()
    while _failures(trace) == had:
        assert now() - begun < 60, "no sync has failed"
        await asyncio.sleep(0.005)
    begun = now()
    while now() - begun < _END_SECONDS:
        try:
            server.check()
        except Died:
            return True
        await asyncio.sleep(0.01)
    return False


def _failures(trace: Path) -> int:
    return trace.read_text().count("EIO") if trace.exists() else 0
