"""The whole cluster under storms: nothing that must hold breaks, and it comes to rest.

Ten by default; `make test` asks for fifty (KCORE_STORMS), `make sim N=` for any number.
"""

import os
from collections import Counter

import pytest

from kcore.sim.cluster import Setting, simulate
from tests.sim import storm

SEEDS = int(os.environ.get("KCORE_STORMS", "10"))
MINUTES = 1.5
# What one storm or another of fifty must have brought, or they would prove little.
EXPECTED = {
    "request lost": 100,
    "answer lost": 100,
    "request doubled": 100,
    "watch broken": 20,
    "dies asking": 50,
    "death": 100,
    "kernel death": 20,
    "disk failed before writing": 5,
    "disk failed after writing": 5,
    "container crash": 20,
    "reboot": 5,
    "late": 500,
}

_happened: Counter[str] = Counter()


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_storm_breaks_nothing(seed: int) -> None:
    report = simulate(Setting(seed, MINUTES))
    _happened.update(report.happened)
    storm.assert_holds(report)
    assert report.revisions > 50


def test_the_storms_brought_every_kind_of_fault() -> None:
    if not _happened:
        pytest.skip("no storm was run")
    asked = {what: count * SEEDS // 50 for what, count in EXPECTED.items()}
    missing = {what: _happened[what] for what, count in asked.items() if _happened[what] < count}
    assert not missing, _happened
