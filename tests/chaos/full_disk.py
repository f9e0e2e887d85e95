"""P5: a full disk is survived: writes are refused, reads and watches go on, and all resumes.

The server's whole directory is a file system of 8 MiB in memory, in which a second file takes and
gives back the space.
"""

import asyncio
import random
import subprocess
from pathlib import Path

from kcore_api.kcore.api.v1 import api_pb2 as pb
from kcore_api.kcore.core.v1 import config_map_pb2

from kcore.client import channel
from kcore.wire.errors import ApiError, Reason
from tests.chaos import witness, workload
from tests.chaos.backing import Backing, Tail
from tests.chaos.history import Outcome, now
from tests.chaos.proof import Proof
from tests.chaos.server import Server
from tests.chaos.workload import Watcher, Workload

_SIZE = 8 << 20
# Of these no 150 have room, and so many compaction keeps: it can't make room for ever.
_FILLER_BYTES = 100_000
# It stays full until so much was read.
_READS = 20
_PATIENCE_SECONDS = 20.0


async def prove(
    root: Path, backing: Backing, mutant: str = "", seed: int = 1, *, rounds: int, wait: float
) -> Proof:
    """Fills it so many times; it stays full for `wait` seconds, or longer."""
    proof = Proof("P5", "a full disk is survived")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "chaos", str(root)], check=True
    )
    # Compaction, too, meets the full disk.
    retention = ("--compact-seconds", "0.1", "--retain-revisions", "150")
    server = Server(root, [*backing.arguments(), *retention], mutant)
    # What is said goes elsewhere: it would take up room.
    server.log = root.with_name(root.name + ".log")
    ballast = root / "ballast"
    clients = Workload(str(server.place.socket), seed)
    watcher = Watcher(clients.socket, random.Random(seed), clients.complaints)
    watcher.chosen = [0]
    refused: list[float] = []
    recovered: list[float] = []
    reads = 0
    try:
        server.start()
        await server.serving()
        pid = server.process.pid if server.process else 0
        async with (
            workload.dialled(clients.socket) as api,
            Tail(backing, server) as tail,
            asyncio.TaskGroup() as group,
        ):
            await workload.make_space(api)
            done = False
            following = group.create_task(watcher.follow())
            for number in range(3):
                group.create_task(clients.write(str(number), lambda: done))
            group.create_task(clients.read("0", lambda: done))
            for _ in range(rounds):
                had = clients.history.written()
                while clients.history.written() < had + 50:
                    await asyncio.sleep(0.01)
                _fill(ballast)
                refused.append(await _until_refused(api))
                counted = len(clients.history.reads)
                await asyncio.sleep(wait)
                patient_until = now() + _PATIENCE_SECONDS
                while len(clients.history.reads) < counted + _READS and now() < patient_until:
                    await asyncio.sleep(0.05)
                reads += len(clients.history.reads) - counted
                ballast.unlink()
                begun = now()
                await _until_written(api)
                recovered.append(now() - begun)
            had = clients.history.written()
            while clients.history.written() < had + 50:
                await asyncio.sleep(0.01)
            done = True
            await asyncio.sleep(0.3)
            following.cancel()
            log = await tail.catch_up()
        server.check()
        same = server.process is not None and server.process.pid == pid
        server.stop()
    finally:
        server.close()
        subprocess.run(["umount", "--lazy", str(root)], check=False)
        server.log.unlink(missing_ok=True)
    said = [one.said for one in clients.history.writes if one.outcome is Outcome.FAILED]
    proof.count("times full", rounds)
    proof.bound("refused after", max(refused), 1.0, "s")
    proof.bound("written again after", max(recovered), 5.0, "s")
    proof.count("reads while full", reads, _READS * rounds)
    proof.count("writes refused for it", sum("full" in one for one in said), rounds)
    proof.complain([] if same else ["the server was started again"])
    proof.complain(clients.complaints)
    events, complaints = workload.told([watcher], log)
    proof.count("events checked", events, 50)
    proof.complain(complaints)
    proof.complain(witness.check(log, clients.history, workload.MANAGER))
    return proof


def _fill(ballast: Path) -> None:
    """Takes all space that is left."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


async def _until_refused(api: channel.Channel) -> float:
    """Uses up what room the database has within; how long the refusal took."""
    for _ in range(2_000):
        begun = now()
        try:
            await _write(api, _FILLER_BYTES)
        except ApiError as error:
            if error.reason is not Reason.EXHAUSTED:
                raise AssertionError(f"a full disk is {error!r}") from error
            return now() - begun
    raise AssertionError("a full disk takes everything")


async def _until_written(api: channel.Channel) -> None:
    begun = now()
    while True:
        try:
            await _write(api, 1)
            return
        except ApiError as error:
            if now() - begun > 20:
                raise AssertionError(f"20 s after there is room again: {error!r}") from error
            await asyncio.sleep(0.05)


async def _write(api: channel.Channel, size: int) -> None:
    made = config_map_pb2.ConfigMap(data={"pad": "x" * size})
    made.metadata.name, made.metadata.namespace = "filler", workload.SPACE
    operation = pb.Operation(ref=pb.Ref(kind=workload.KIND))
    operation.apply.object = made.SerializeToString()
    operation.apply.force = True
    transaction = pb.Transaction(operations=[operation], manager="setting")
    await api.commit(pb.CommitRequest(transactions=[transaction]))
