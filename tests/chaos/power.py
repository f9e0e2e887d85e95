"""P3: what was acknowledged is there after the power was cut.

The store's files are on an ext4 in a loop file. Under load it is shut down as a power cut does it:
nothing that was not synced reaches the disk any more, the journal included. Then it is mounted
again, which replays the journal, and the store is opened.

    python -m tests.chaos.power <database> <mutant>          the load
"""

import asyncio
import fcntl
import itertools
import os
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store.sqlite import SqliteStore
from tests.chaos.backing import Backing, Sqlite
from tests.chaos.proof import Proof
from tests.chaos.server import HERE

# EXT4_IOC_SHUTDOWN, and its argument: the journal is not flushed.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_IMAGE_BYTES = 64 << 20


async def prove(
    root: Path, backing: Backing, mutant: str = "", seed: int = 1, *, cuts: int
) -> Proof:
    """Cuts it so many times; the log goes on from what each left."""
    assert isinstance(backing, Sqlite), "a disk of its own is SQLite's"
    proof = Proof("P3", "… after power loss")
    draw = random.Random(seed)
    image, disk = root / "image", root / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(_IMAGE_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    _mount(image, disk)
    acknowledged = in_all = 0
    try:
        for number in range(cuts):
            load = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.power", str(disk / "log.db"), mutant],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=HERE,
                env={"PYTHONPATH": f"{HERE}:{HERE / 'generated'}", "PATH": "/usr/bin:/bin"},
            )
            assert load.stdout is not None
            before = acknowledged
            heard = await _until_cut(load.stdout, disk, draw.uniform(0.05, 0.4))
            acknowledged = max(acknowledged, heard)
            load.kill()
            load.wait()
            in_all += acknowledged - before
            subprocess.run(["umount", str(disk)], check=True)
            _mount(image, disk)
            store = SqliteStore(disk / "log.db", SystemClock(), Chance())
            try:
                await store.open()
                log = [one async for one in store.replay()]
            except Exception as error:
                proof.broken.append(f"cut {number}: {error}")
                break
            finally:
                await store.close()
            head = log[-1].revision if log else 0
            if head < acknowledged:
                said_head = f"{acknowledged} was acknowledged, the log ends at {head}: lost"
                proof.broken.append(f"cut {number}: {said_head}")
                break
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
    proof.count("cuts", cuts)
    proof.count("acknowledged", in_all, 0 if proof.broken else 5 * cuts)
    return proof


async def _until_cut(said: IO[bytes], disk: Path, seconds: float) -> int:
    """Cuts after a while of load; what had been acknowledged, and heard of, before.

    What is heard later does not count: to ext4 the shutdown is not one moment, and a sync that is
    under way may still be said to have succeeded.
    """
    heard = 0

    def read() -> None:
        nonlocal heard
        for line in said:
            heard = int(line)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    while not heard:
        assert reader.is_alive(), "the load does not begin"
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    counted = heard
    _cut(disk)
    return counted


def _mount(image: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)


def _cut(disk: Path) -> None:
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    finally:
        os.close(descriptor)


async def load(path: Path) -> None:
    """Appends for ever, and says what is durable."""
    store = SqliteStore(path, SystemClock(), Chance())
    head = (await store.open()).head
    async for _ in store.replay():
        pass
    for number in itertools.count(head + 1):
        key = Key("k.A", "default", f"o{number % 20}")
        body = b"%d" % number * 300
        record = Record(number, key, "u", Verb.UPDATE, body, "me", 0, float(number), f"r{number}")
        await store.append([record], {})
        print(number, flush=True)
        if number % 200 == 0:
            await store.compact(number - 100)


if __name__ == "__main__":
    if sys.argv[2]:
        import importlib

        importlib.import_module(f"tests.chaos.mutants.{sys.argv[2]}").plant()
    asyncio.run(load(Path(sys.argv[1])))
