"""One seed, one run: whatever the interpreter does with its hashes."""

import os
import subprocess
import sys
from pathlib import Path

from kcore.sim.cluster import Setting, simulate
from tests import budget

_ROOT = Path(__file__).parents[2]
_MINUTES = 1.0
_SEEDS = range(1, 2 + budget.examples(5))
_PROGRAM = f"""
from kcore.sim.cluster import Setting, simulate
for seed in range({_SEEDS.start}, {_SEEDS.stop}):
    print(simulate(Setting(seed, {_MINUTES})).digest)
"""


def _digests(hash_seed: str) -> list[str]:
    environment = dict(os.environ, PYTHONHASHSEED=hash_seed)
    environment["PYTHONPATH"] = os.pathsep.join((str(_ROOT), str(_ROOT / "generated")))
    answer = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=environment,
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return answer.stdout.split()


def test_the_same_seed_gives_the_same_transcript() -> None:
    first = [simulate(Setting(seed, _MINUTES)).digest for seed in _SEEDS]
    assert len(set(first)) == len(first), "different seeds differ"
    # This process has a hash seed of its own.
    for hash_seed in ("0", "1")[: 1 if budget.SPREAD > 1 else 2]:
        assert _digests(hash_seed) == first
