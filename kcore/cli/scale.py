"""`kcore scale`: the number of replicas of whatever kind has a door for it."""

from typing import Any

import click
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import follow, objects, options, output, rollouts, subject
from kcore.cli.report import DRY
from kcore.cli.session import Session
from kcore.client import codec
from kcore.client.kinds import Kind

_PATH = "spec.replicas"


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME... | KIND/NAME...")
@options.namespace
@options.dry_run
@click.option("--replicas", type=click.IntRange(min=0), required=True, help="How many.")
@click.option("--current-replicas", type=int, default=-1, help="Only if there are so many now.")
@click.option("--timeout", type=options.SECONDS, default=0.0, help="Wait until it is so.")
@click.pass_obj
async def scale(
    session: Session,
    words: tuple[str, ...],
    dry_run: str,
    replicas: int,
    current_replicas: int,
    timeout: float,
) -> int:
    """Set the number of replicas.

    \b
    kcore scale deploy/web --replicas=3
    """

    def fill(wanted: Any) -> None:
        wanted.spec.replicas = replicas

    for asked in subject.parse(words, await session.kinds()):
        kind = asked.kind
        if not asked.name:
            raise click.UsageError(f"say which of the {kind.options.plural}")
        message = await objects.get(session, kind, session.namespace, asked.name)
        guards = []
        if current_replicas >= 0:
            is_now = pb.FieldIs(path=_PATH, value=str(current_replicas))
            guards.append(pb.Guard(ref=objects.ref(kind, message), field=is_now))
        operation = pb.Operation(
            ref=objects.ref(kind, message),
            subresource=_door(kind),
            patch=objects.merge(kind, [_PATH], fill),
        )
        if dry_run != "client":
            await objects.change(session, operation, guards, dry_run=dry_run == "server")
        session.out(f"{output.name(kind, message)} scaled{DRY[dry_run]}")
        if timeout and dry_run == "none":
            await follow.within(
                follow.until(
                    session,
                    kind,
                    session.namespace,
                    asked.name,
                    lambda now, kind=kind: (  # type: ignore[misc]
                        now is None or rollouts.state(kind, codec.to_plain(now)).done
                    ),
                ),
                timeout,
                lambda asked=asked: f"error: timed out waiting for {asked.said}",  # type: ignore[misc]
            )
    return 0


def _door(kind: Kind) -> str:
    """The subresource to scale through."""
    for door in kind.options.subresources:
        if door.name == "scale" and _PATH in door.paths:
            return str(door.name)
    if rollouts.has(kind, _PATH):
        return ""
    raise click.UsageError(f"{kind.options.plural} have no replicas to scale")
