"""The whole cluster under storms: nothing that must hold breaks, and it comes to rest."""

from collections import Counter

from kcore.sim.cluster import Setting, simulate
from tests import budget
from tests.sim import storm

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
    # Of a node: it comes back at once, or after a while, or never.
    "reboot": 3,
    "vanished": 5,
    "late": 500,
}


def test_storms_break_nothing_and_bring_every_kind_of_fault() -> None:
    happened: Counter[str] = Counter()
    for seed in range(1, budget.STORMS + 1):
        report = simulate(Setting(seed, MINUTES))
        storm.assert_holds(report)
        assert report.revisions > 50
        happened.update(report.happened)
    asked = {what: count * budget.STORMS // 50 for what, count in EXPECTED.items()}
    missing = {what: happened[what] for what, count in asked.items() if happened[what] < count}
    assert not missing, happened
