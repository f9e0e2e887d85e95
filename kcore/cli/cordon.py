"""`kcore cordon` and `kcore uncordon`: whether new pods may come to nodes."""

from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects, options, targets
from kcore.cli.report import Report
from kcore.cli.session import Session
from kcore.client.kinds import Kind


def _command(function: Any) -> Any:
    for option in (
        click.argument("names", nargs=-1, metavar="NODE..."),
        options.selector,
        options.dry_run,
        click.pass_obj,
    ):
        function = option(function)
    return function


@click.command()
@_command
async def cordon(session: Session, names: tuple[str, ...], labels: str, dry_run: str) -> None:
    """Let no new pods come to nodes. Those that are there stay: `drain` sends them away.

    \b
    kcore cordon n1
    kcore cordon -l topology.kubernetes.io/zone=a
    """
    found = await nodes(session, names, labels)
    await close(session, found, True, dry_run)


@click.command()
@_command
async def uncordon(session: Session, names: tuple[str, ...], labels: str, dry_run: str) -> None:
    """Let pods come to nodes again.

    \b
    kcore uncordon n1
    """
    found = await nodes(session, names, labels)
    await close(session, found, False, dry_run)


async def nodes(
    session: Session, names: Sequence[str], labels: str, *, all_: bool = False
) -> list[tuple[Kind, Message]]:
    """The nodes that are named, by "n1" or "node/n1", or selected."""
    if not names and not labels and not all_:
        raise click.UsageError("name a node, or select some by -l")
    prefixes = ("node/", "nodes/", "no/")
    bare = [
        next((name.removeprefix(each) for each in prefixes if name.startswith(each)), name)
        for name in names
    ]
    return await targets.find(session, ["nodes", *bare], labels=labels, all_=all_)


async def close(
    session: Session, found: Sequence[tuple[Kind, Message]], closed: bool, dry_run: str
) -> None:
    """Makes nodes take no new pods, or take them again; says of each what it did."""
    report = Report(session, "", dry_run)
    word = "cordoned" if closed else "uncordoned"
    for kind, message in found:
        node: Any = message
        if node.spec.unschedulable == closed:
            report.add(kind, message, f"already {word}")
            continue
        if dry_run != "client":

            def fill(wanted: Any) -> None:
                if closed:
                    wanted.spec.unschedulable = True

            patch = objects.merge(kind, ["spec.unschedulable"], fill)
            operation = pb.Operation(ref=objects.ref(kind, message), patch=patch)
            await objects.change(session, operation, dry_run=dry_run == "server")
        report.add(kind, message, word)
    report.end()
