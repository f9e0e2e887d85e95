"""`kcore events`: what happened, oldest first."""

from contextlib import aclosing
from typing import Any

import click
from google.protobuf.message import Message

from kcore.cli import follow, objects, options, output, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.table import Table
from kcore.client import age
from kcore.client.kinds import Kind


@click.command()
@options.namespace
@options.everywhere
@options.output
@click.option("--for", "about", default="", metavar="KIND/NAME", help="Only of this object.")
@click.option("--types", default="", help="Only of these types: Warning,Normal.")
@click.option("-w", "--watch", is_flag=True, help="Go on with what happens.")
@click.option("--no-headers", is_flag=True, help="Without the first line.")
@click.pass_obj
async def events(
    session: Session,
    all_namespaces: bool,
    form: str,
    about: str,
    types: str,
    watch: bool,
    no_headers: bool,
) -> int:
    """Show what happened.

    \b
    kcore events --for deploy/web
    kcore events -A --types=Warning -w
    """
    output.check(form, ("name", "yaml", "json"))
    catalogue = await session.kinds()
    kind = kind_of_events(catalogue)
    fields = ""
    if about:
        (asked,) = subject.parse([about], catalogue)
        fields = selector(asked.kind, asked.name)
    wanted = {t.lower() for t in types.split(",") if t}
    namespace = "" if all_namespaces else session.namespace
    listing = await objects.listing(session, kind, namespace, fields=fields)
    found = [m for m in listing.items if not wanted or str(_any(m).type).lower() in wanted]
    found.sort(key=last_seconds)
    if form and form != "name":
        session.out(output.text(output.as_list([output.plain(m) for m in found]), form))
        return 0
    if form == "name":
        for message in found:
            session.out(output.name(kind, message))
        return 0
    headers = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    if all_namespaces:
        headers.insert(0, "NAMESPACE")
    table = Table(headers, show_headers=not no_headers)
    now = session.clock.now()

    def row(message: Message, moment: float) -> list[str]:
        cells = cells_of(message, moment)
        return [objects.metadata(message).namespace, *cells] if all_namespaces else cells

    if found:
        for line in table.lines([row(message, now) for message in found]):
            session.out(line)
    elif not watch:
        where = "" if all_namespaces else f" in {session.namespace} namespace"
        session.say(f"No events found{where}.")
    if not watch:
        return 0
    session.stdout.flush()
    changes = follow.changes(
        session, kind, namespace, fields=fields, from_revision=listing.revision
    )
    async with aclosing(changes):
        async for batch in changes:
            for message, gone in zip(batch.objects, batch.gone, strict=True):
                if gone or (wanted and str(_any(message).type).lower() not in wanted):
                    continue
                for line in table.lines([row(message, session.clock.now())]):
                    session.out(line)
            session.stdout.flush()
    raise Exit(FAILED, "error: the watch has ended")


def kind_of_events(catalogue: Any) -> Kind:
    """The kind that events are."""
    found: Kind = catalogue.of_type("v1", "Event")
    return found


def selector(kind: Kind, name: str, uid: str = "") -> str:
    """The field selector for events of an object."""
    said = f"involvedObject.kind={kind.name},involvedObject.name={name}"
    return f"{said},involvedObject.uid={uid}" if uid else said


def last_seconds(message: Message) -> float:
    """When it happened last."""
    event = _any(message)
    return float(
        event.last_timestamp.seconds
        or event.series.last_observed_time.seconds
        or event.event_time.seconds
        or event.first_timestamp.seconds
        or event.metadata.creation_timestamp.seconds
    )


def cells_of(message: Message, now: float) -> list[str]:
    """When, type, reason, object, message."""
    event = _any(message)
    seen = age.text(now - last_seconds(message))
    if event.count > 1:
        first = event.first_timestamp.seconds or event.metadata.creation_timestamp.seconds
        seen = f"{seen} (x{event.count} over {age.text(now - first)})"
    about = event.involved_object
    said = " ".join(str(event.message).split())
    return [seen, event.type, event.reason, f"{about.kind.lower()}/{about.name}", said]


def _any(message: Message) -> Any:
    return message
