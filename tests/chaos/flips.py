"""P6: corruption is found, and not served.

One bit of one random byte is changed, in the database or in what was written ahead of it. Opening
and reading all must refuse, or show everything exactly as it was written (the byte was in free
space, or written over); and `kcore check` says the same.
"""

import asyncio
import random
import shutil
import sqlite3
from pathlib import Path

from kcore.chance import Chance
from kcore.clock import SystemClock
from kcore.kernel.record import Key, Record, Verb
from kcore.kernel.store import Refused, sqlite_file
from kcore.kernel.store.sqlite import SqliteStore
from tests.chaos.backing import Backing, Sqlite
from tests.chaos.proof import Proof

_RECORDS = 300


async def prove(
    root: Path, backing: Backing, mutant: str = "", seed: int = 1, *, flips: int
) -> Proof:
    """Half of them in each file."""
    assert isinstance(backing, Sqlite) and not mutant, "these are the files of SQLite"
    proof = Proof("P6", "corruption is found, not served")
    good = root / "good"
    expected = await _written(good / "log.db")
    draw = random.Random(seed)
    found = harmless = 0
    for number in range(flips):
        which = ("log.db", "log.db-wal")[number % 2]
        place = root / "bad"
        shutil.copytree(good, place)
        data = bytearray((place / which).read_bytes())
        at, bit = draw.randrange(len(data)), draw.randrange(8)
        data[at] ^= 1 << bit
        (place / which).write_bytes(bytes(data))
        named = f"{which} byte {at} bit {bit}"
        faults = await asyncio.to_thread(
            lambda path: list(sqlite_file.faults(path)), place / "log.db"
        )
        refused = await _refuses(place / "log.db", expected, named, proof)
        found += refused
        harmless += not refused
        if faults and not refused:
            proof.broken.append(f"{named}: check says {faults[0]}, and it is served")
        shutil.rmtree(place)
    proof.count("flips", flips, flips)
    proof.count("refused", found, flips // 3)
    proof.count("provably harmless", harmless)
    return proof


async def _written(path: Path) -> list[Record]:
    """A log of which half is in the WAL; as a crash leaves it."""
    store = SqliteStore(path, SystemClock(), Chance(1))
    await store.open()
    records = [
        Record(n + 1, Key("k.A", f"n{n % 7}", f"o{n % 50}"), "u", Verb.UPDATE, b"%d" % n * 200,
               "me", 0, float(n), f"r{n}")
        for n in range(_RECORDS)
    ]  # fmt: skip
    for start in range(0, _RECORDS // 2, 10):
        await store.append(records[start : start + 10], {})
    # Closed, so that it is in the database; what follows stays ahead of it.
    await store.close()
    await store.open()
    for start in range(_RECORDS // 2, _RECORDS, 10):
        await store.append(records[start : start + 10], {})
    # What a WAL has lost of its end, SQLite takes for a crash: the mark knows better.
    store._mark.write(store._opened, _RECORDS)
    crashed = path.parent.with_name("crashed")
    shutil.copytree(path.parent, crashed)
    await store.close()
    shutil.rmtree(path.parent)
    (crashed / "log.db-shm").unlink(missing_ok=True)
    crashed.rename(path.parent)
    return records


async def _refuses(path: Path, expected: list[Record], named: str, proof: Proof) -> bool:
    store = SqliteStore(path, SystemClock(), Chance(2))
    try:
        await store.open()
        shown = [one async for one in store.replay()]
    except Refused:
        return True
    except sqlite3.Error as error:
        proof.broken.append(f"{named}: {error!r} is not a refusal")
        return True
    finally:
        await store.close()
    if shown != expected:
        proof.broken.append(f"{named}: {len(shown)} records are served, and not as written")
    return False
