"""P2: what was acknowledged is there after a crash at every sync point, and at every write.

`strace` kills a small process at its n-th fdatasync, or its n-th pwrite64, for each n; the process
runs one script over the store alone (creations, batches, deletions, kinds that keep no history,
compaction, checkpoints, and being opened again), and says what was acknowledged. Then the store is
opened again, and must hold all of that, at most one batch more, each batch whole, and go on.

    python -m tests.chaos.sync_points <database>         the script
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store.sqlite import SqliteStore
from tests.chaos.backing import Backing, Sqlite
from tests.chaos.proof import Proof
from tests.chaos.server import HERE

_ROUNDS = 100
_ACK = b"acknowledged "


def batches() -> list[tuple[list[Record], dict[Key, int]]]:
    """What the script appends, batch by batch."""
    made = []
    revision = 0
    for number in range(_ROUNDS):
        batch: list[Record] = []
        for _ in range(1 + number % 3):
            revision += 1
            key = Key("k.A", "default", f"o{revision % 7}")
            verb = Verb.DELETE if revision % 11 == 0 else Verb.UPDATE
            body = f"{revision}".encode() * (1 + number % 5 * 400)
            batch.append(
                Record(revision, key, "u", verb, body, "me", 0, float(revision), f"r{revision}")
            )
            if revision % 4 == 0:
                batch.append(
                    Record(revision, Key("k.B", "", "b"), "u", verb, body, "me", 0, float(revision),
                           f"r{revision}", ordinal=1)
                )  # fmt: skip
        mortal = {Key("k.B", "", "b"): 0} if any(one.ordinal for one in batch) else {}
        made.append((batch, mortal))
    return made


async def script(path: Path) -> None:
    """Appends all batches that are not there yet, and says when each is durable."""
    store = SqliteStore(path, SystemClock(), Chance())
    opened = await store.open()
    async for _ in store.replay():
        pass
    for number, (batch, keep) in enumerate(batches()):
        last = batch[-1].revision
        if last <= opened.head:
            continue
        await store.append(batch, keep)
        sys.stdout.buffer.write(_ACK + f"{last}\n".encode())
        sys.stdout.flush()
        if number % 9 == 8:
            await store.compact(last - 5)
        if number % 80 == 79:
            # Closing checkpoints; and what was never closed is taken up elsewhere. Not sooner:
            # calls are counted for each thread, and the store has a new one each time.
            await store.close()
            opened = await store.open()
    await store.close()


async def prove(
    root: Path, backing: Backing, mutant: str = "", seed: int = 1, *, points: Sequence[int]
) -> Proof:
    """The n-th of each system call, for these n; another seed takes those after them."""
    assert isinstance(backing, Sqlite), "these are the calls of SQLite"
    proof = Proof("P2", "… at every sync point, and at every write")
    for call in ("fdatasync", "pwrite64"):
        fired = 0
        for number in (point + seed - 1 for point in points):
            path = root / call / str(number) / "log.db"
            path.parent.mkdir(parents=True)
            done = await asyncio.to_thread(_run, path, mutant, call, number)
            fired += done.returncode == -9 or done.returncode == 137
            if done.returncode == 1:
                proof.broken.append(f"{call} {number}: {done.stderr.decode()[-300:]}")
            proof.complain(
                [f"{call} {number}: {one}" for one in await _after(path, done.stdout, mutant)]
            )
        proof.count(f"killed at {call}", fired, len(points))
    return proof


def _run(
    path: Path, mutant: str, call: str = "", number: int = 0
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tests.chaos.sync_points", str(path), mutant]
    if call:
        inject = f"inject={call}:signal=KILL:when={number}"
        command = [
            *("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject),
            *command,
        ]
    environment = {"PYTHONPATH": f"{HERE}:{HERE / 'generated'}", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, capture_output=True, cwd=HERE, env=environment, timeout=60)


async def _after(path: Path, said: bytes, mutant: str) -> list[str]:
    """What is wrong with what is there, now and after the script has been run to its end."""
    whole = [line for line in said.split(b"\n") if line.startswith(_ACK)]
    acknowledged = int(whole[-1].removeprefix(_ACK)) if whole else 0
    complaints = []
    if not path.exists():
        return [] if not acknowledged else ["there is no database"]
    found = await _read(path)
    lasts = [0, *(batch[-1].revision for batch, _ in batches())]
    head = found[-1].revision if found else 0
    if head < acknowledged:
        complaints.append(f"{acknowledged} was acknowledged, and the log ends at {head}: lost")
    if head not in lasts:
        complaints.append(f"the log ends at {head}, in the middle of a batch")
    elif acknowledged in lasts and lasts.index(head) > lasts.index(acknowledged) + 1:
        complaints.append(f"the log ends at {head}, and only {acknowledged} was acknowledged")
    await asyncio.to_thread(_run, path, mutant)
    everything = [one for batch, _ in batches() for one in batch]
    living = {one.key: one for one in everything}
    final = {one.key: one for one in await _read(path)}
    for key, record in living.items():
        if record.verb is not Verb.DELETE and final.get(key) != record:
            complaints.append(f"{key} is not what was written last")
    return complaints


async def _read(path: Path) -> list[Record]:
    store = SqliteStore(path, SystemClock(), Chance())
    try:
        await store.open()
        return [one async for one in store.replay()]
    finally:
        await store.close()


if __name__ == "__main__":
    if sys.argv[2]:
        import importlib

        importlib.import_module(f"tests.chaos.mutants.{sys.argv[2]}").plant()
    asyncio.run(script(Path(sys.argv[1])))
