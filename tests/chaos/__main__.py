"""`make chaos`: every proof at its full figure, in a table; exit 1 if anything is broken.

python -m tests.chaos               all of them, and the planted bugs
python -m tests.chaos P1 P8         some
python -m tests.chaos --small       a short form of each
python -m tests.chaos mutants       the planted bugs: each must be found by the short form
"""

import asyncio
import importlib
import re
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import click

from tests.chaos import (
    crash,
    failed_sync,
    flips,
    full_disk,
    linearizable,
    power,
    retries,
    stuck,
    sync_points,
    watching,
)
from tests.chaos.backing import BACKINGS, Backing, Gap
from tests.chaos.proof import Proof
from tests.chaos.server import Died

# A directory, a store, the planted bug's name, and the seed.
Run = Callable[[Path, Backing, str, int], Awaitable[Proof]]

FULL: dict[str, Run] = {
    "P1": partial(crash.prove, kills=50, acknowledged=50_000),
    "P2": partial(sync_points.prove, points=range(1, 61)),
    "P3": partial(power.prove, cuts=20),
    "sync": partial(failed_sync.prove, operations=2_000, every=40, deaths=20),
    "P5": partial(full_disk.prove, rounds=20, wait=1.0),
    "P6": partial(flips.prove, flips=200),
    "P7": partial(linearizable.prove, operations=30_000),
    "P8": partial(watching.prove, watchers=50, events=500_000, kills=10, retained=500),
    "P9": partial(stuck.prove, watchers=100, updates=100_000, slower=3.0),
    "P23": partial(retries.prove, operations=2_000, kills=20),
}
SMALL: dict[str, Run] = {
    "P1": partial(crash.prove, kills=1, acknowledged=300, between=100),
    "P2": partial(sync_points.prove, points=[30]),
    "P3": partial(power.prove, cuts=2),
    "sync": partial(failed_sync.prove, operations=40, every=15, deaths=1),
    "P5": partial(full_disk.prove, rounds=1, wait=0.2),
    "P6": partial(flips.prove, flips=10),
    "P7": partial(linearizable.prove, operations=800, counters=4, increments=10),
    "P8": partial(watching.prove, watchers=6, events=1_500, kills=1, retained=120),
    "P9": partial(stuck.prove, watchers=5, updates=1_000),
    "P23": partial(retries.prove, operations=60, kills=1),
}
# Seeds that a planted bug may take until it is found.
TRIES = 3


def run(prove: Run, backing: Backing, mutant: str = "", seed: int = 1) -> Proof:
    """One proof, in a directory of its own."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kcx-", dir="/tmp") as root:
        proof = asyncio.run(prove(Path(root), backing, mutant, seed))
    proof.figures["took"] = f"{time.monotonic() - begun:.0f} s"
    return proof


def mutants() -> list[str]:
    """Names of the planted bugs."""
    return sorted(path.stem for path in (Path(__file__).parent / "mutants").glob("*.py"))


def find(name: str, backing: Backing) -> Proof:
    """Whether a planted bug is found, by the complaint that it should be."""
    by, said = importlib.import_module(f"tests.chaos.mutants.{name}").FOUND_BY
    found = Proof("P25", f"{name} is found by {by}")
    for seed in range(1, TRIES + 1):
        complaints: list[str] = []
        try:
            complaints = run(SMALL[by], backing, name, seed).broken
        except (Died, AssertionError, Gap) as error:
            complaints = [repr(error)]
        except BaseExceptionGroup as group:
            complaints = [repr(group.exceptions)]
        if any(re.search(said, one) for one in complaints):
            found.count("runs", seed)
            return found
        found.figures[f"seed {seed}"] = complaints[0][:200] if complaints else "nothing"
    found.broken.append(f"{name} lives: nothing says {said!r}")
    return found


@click.command()
@click.argument("names", nargs=-1)
@click.option("--small", is_flag=True, help="A short form of each.")
@click.option("--store", type=click.Choice(sorted(BACKINGS)), default="sqlite")
def main(names: tuple[str, ...], small: bool, store: str) -> None:
    """Proves what kcore promises of its kernel."""
    proofs = SMALL if small else FULL
    broken = 0
    for name in names or (*proofs, "mutants"):
        if name == "mutants":
            done = (find(mutant, BACKINGS[store]()) for mutant in mutants())
        elif name in proofs:
            done = (run(prove, BACKINGS[store]()) for prove in [proofs[name]])
        else:
            done = (find(one, BACKINGS[store]()) for one in [name])
        for proof in done:
            print(proof, flush=True)
            broken += bool(proof.broken)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
