"""`python -m kcore.sim --seed S`: runs seeds, says what broke, and finds the faults that it takes.

One line for each seed. Of one that breaks, what is broken and the last lines of its transcript,
then the smallest set of faults (by leaving out one kind after the other) that still breaks it. The
exit code is the number of broken seeds, at most 100.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace

import click

from kcore.clock import SystemClock
from kcore.sim.cluster import Cluster, Report, Setting, simulate
from kcore.sim.faults import CALM, Faults
from kcore.sim.story import CAST

_MOST_COMPLAINTS = 20


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", "-n", default=1, show_default=True, help="How many, from there on.")
@click.option("--minutes", default=3.0, show_default=True, help="Of storm, in virtual time.")
@click.option("--nodes", default=3, show_default=True)
@click.option("--calm", is_flag=True, help="Without faults.")
@click.option("--without", multiple=True, help="A kind of fault to leave out.")
@click.option("--cast", multiple=True, type=click.Choice(CAST), help="Only these kinds.")
@click.option("--shrink/--no-shrink", default=True, help="Look for the faults that it takes.")
@click.option("--transcript", is_flag=True, help="Show the last lines of every seed.")
def main(
    seed: int,
    seeds: int,
    minutes: float,
    nodes: int,
    calm: bool,
    without: Sequence[str],
    cast: Sequence[str],
    shrink: bool,
    transcript: bool,
) -> None:
    """Simulates clusters under faults."""
    clock = SystemClock()
    began, broken = clock.monotonic(), 0
    happened: Counter[str] = Counter()
    for number in range(seed, seed + seeds):
        started = clock.monotonic()
        setting = Setting(number, minutes, nodes, CALM if calm else None, cast or None)
        if without:
            setting = replace(setting, faults=_without(Cluster(setting).faults, without))
        report = simulate(setting)
        happened += report.happened
        click.echo(f"{_line(report)}  {clock.monotonic() - started:5.2f} s")
        if transcript or report.broken:
            click.echo("\n".join(report.transcript))
        if report.broken:
            broken += 1
            for what in report.broken[:_MOST_COMPLAINTS]:
                click.echo(f"BROKEN {what}")
            needed = _shrunk(setting, report) if shrink and not calm else []
            said = f" --without {' --without '.join(needed)}" if needed else ""
            click.echo(f"python -m kcore.sim --seed {number} --minutes {minutes}{said}")
    click.echo(", ".join(f"{happened[what]} {what}" for what in sorted(happened)))
    click.echo(f"{seeds} seeds, {broken} broken, {clock.monotonic() - began:.1f} s")
    sys.exit(min(broken, 100))


def _line(report: Report) -> str:
    faults = sum(count for what, count in report.happened.items() if what != "late")
    return (
        f"seed {report.seed:5d}  {'BROKEN' if report.broken else 'holds '}"
        f"  {report.revisions:6d} revisions  {faults:4d} faults  {report.seconds:7.0f} virtual s"
        f"  {report.digest[:16]}  {' '.join(report.cast)}"
    )


def _without(faults: Faults, names: Sequence[str]) -> Faults:
    return replace(faults, **{name: getattr(CALM, name) for name in names})


def _shrunk(setting: Setting, report: Report) -> list[str]:
    """Kinds of faults that may be left out, and it still breaks."""
    faults = report.faults
    left_out: list[str] = []
    for field in fields(Faults):
        if field.name in ("late_seconds", "pull_seconds") or not getattr(faults, field.name):
            continue
        fewer = _without(faults, [field.name])
        if simulate(replace(setting, faults=fewer)).broken:
            faults = fewer
            left_out.append(field.name)
    return left_out


if __name__ == "__main__":
    main()
