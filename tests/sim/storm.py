"""Runs seeds for tests, and says how to see again what went wrong."""

from collections.abc import Iterable
from dataclasses import replace

from kcore.sim.cluster import Plot, Report, Setting, simulate
from kcore.sim.faults import CALM


def calm(plot: Plot, nodes: int = 3) -> Report:
    """The plot without faults; all that must hold held."""
    report = simulate(Setting(seed=1, nodes=nodes, faults=CALM), plot)
    assert_holds(report)
    return report


def assert_holds(report: Report) -> None:
    if report.broken:
        said = "\n".join(report.broken[:10])
        lines = "\n".join(report.transcript)
        raise AssertionError(f"{lines}\n{said}\npython -m kcore.sim --seed {report.seed}")


def first_broken(setting: Setting, seeds: Iterable[int], complaint: str) -> Report | None:
    """The first seed that breaks with this complaint."""
    for seed in seeds:
        report = simulate(replace(setting, seed=seed))
        if any(complaint in what for what in report.broken):
            return report
    return None
