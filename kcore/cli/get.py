"""`kcore get`: objects as tables of their kind's columns, as YAML, JSON, names; as they are, as
they change, or as they were.
"""

import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import follow, objects, options, output, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.cli.view import FORMS, Batch, Look, View
from kcore.client.kinds import Kind
from kcore.wire.errors import ApiError, Reason


@click.command()
@click.argument("words", nargs=-1, metavar="KIND [NAME...] | KIND/NAME...")
@options.namespace
@options.everywhere
@options.selector
@options.field_selector
@options.filenames
@click.option("-o", "--output", "form", default="",
              help="wide, name, yaml, json, jsonpath=…, custom-columns=…, cel=…;"
              " also jsonpath-file=…, custom-columns-file=….")  # fmt: skip
@click.option("-w", "--watch", is_flag=True, help="Go on with what changes.")
@click.option("--watch-only", is_flag=True, help="Only what changes from now on.")
@click.option("--output-watch-events", is_flag=True, help="With -w: what happened, too.")
@click.option("--at", "moment", default="", metavar="REVISION|TIME|SPAN",
              help="As it was then: 4711, 2026-01-31T12:00:00Z, 10m.")  # fmt: skip
@click.option("--no-headers", is_flag=True, help="Tables without their first line.")
@click.option("--show-labels", is_flag=True, help="Labels as the last column.")
@click.option("-L", "--label-columns", multiple=True, help="These labels as columns: app,tier.")
@click.option("--show-kind", is_flag=True, help="The kind before each name.")
@click.option("--show-managed-fields", is_flag=True, help="Also who set which field.")
@click.option("--ignore-not-found", is_flag=True, help="What isn't there is no error.")
@click.option("--sort-by", default="", help="Path to sort by: .metadata.creationTimestamp.")
@click.option("--chunk-size", type=click.IntRange(min=0), default=objects.PAGE, show_default=True,
              help="Objects asked for at a time; 0: as many as fit.")  # fmt: skip
@click.pass_obj
async def get(
    session: Session,
    words: tuple[str, ...],
    all_namespaces: bool,
    labels: str,
    fields: str,
    filenames: tuple[str, ...],
    recursive: bool,
    form: str,
    watch: bool,
    watch_only: bool,
    output_watch_events: bool,
    moment: str,
    no_headers: bool,
    show_labels: bool,
    label_columns: tuple[str, ...],
    show_kind: bool,
    show_managed_fields: bool,
    ignore_not_found: bool,
    sort_by: str,
    chunk_size: int,
) -> int:
    """Show objects.

    \b
    kcore get pods -o wide
    kcore get deploy/web cm/settings -o yaml
    kcore get pods -A -l app=web --sort-by .metadata.creationTimestamp
    kcore get pods -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName
    kcore get pods -o cel='self.status.podIP'
    kcore get deploy web --at 10m -o yaml
    """
    form = output.check(form, FORMS)
    watches = watch or watch_only
    if watches and moment:
        raise click.UsageError("the past does not change: --at goes without --watch")
    if output_watch_events and not watches:
        raise click.UsageError("--output-watch-events goes with --watch or --watch-only")
    subjects = await _subjects(session, words, filenames, recursive)
    named = all(s.name for s in subjects)
    if named and all_namespaces:
        raise click.UsageError("a name and -A don't go together")
    if named and (labels or fields):
        raise click.UsageError("a name and a selector don't go together")
    at = None
    if moment:
        from kcore.cli import moment as moments

        at = moments.at(moment, session.clock.now())
    look = Look(
        form,
        all_namespaces,
        not no_headers,
        show_labels,
        tuple(key for said in label_columns for key in said.split(",") if key),
        show_kind,
        show_managed_fields,
        output_watch_events,
        at.time.ToNanoseconds() / 1e9 if at is not None and at.HasField("time") else None,
    )
    view = View(session, look)
    if watches:
        if len({s.kind.full_name for s in subjects}) > 1:
            raise click.UsageError("only one kind can be watched at a time")
        return await _watch(
            session, view, subjects, all_namespaces, labels, fields, now_too=not watch_only
        )
    batches, failed = await _read(
        session, subjects, all_namespaces, labels, fields, ignore_not_found, at, chunk_size
    )
    if sort_by:
        batches = [Batch(b.kind, _sorted(b.items, sort_by), b.revision) for b in batches]
    view.show(batches, several=len(subjects) > 1, one=named and len(subjects) == 1)
    if batches and not named and form in ("", "wide") and not any(b.items for b in batches):
        await _say_nothing_found(session, batches, all_namespaces)
    return failed


async def _subjects(
    session: Session, words: Sequence[str], filenames: Sequence[str], recursive: bool
) -> list[subject.Subject]:
    catalogue = await session.kinds()
    if not filenames:
        return subject.parse(words, catalogue)
    if words:
        raise click.UsageError("-f and names don't go together")
    from kcore.cli import submit

    found = await submit.load(session, filenames, recursive, named=True)
    return [subject.of(one.kind, one.message) for one in found]


async def _read(
    session: Session,
    subjects: Sequence[subject.Subject],
    everywhere: bool,
    labels: str,
    fields: str,
    ignore_not_found: bool,
    at: pb.At | None,
    chunk_size: int,
) -> tuple[list[Batch], int]:
    """What is there, by kind in the order asked for; and the exit code."""
    batches: list[Batch] = []
    failed = 0
    for asked in subjects:
        namespace = "" if everywhere else asked.namespace or session.namespace
        try:
            if asked.name:
                items = [await objects.get(session, asked.kind, namespace, asked.name, at=at)]
                revision = 0
            else:
                listing = await objects.listing(
                    session,
                    asked.kind,
                    namespace,
                    labels=labels,
                    fields=fields,
                    at=at,
                    page_size=chunk_size,
                )
                items, revision = listing.items, listing.revision
        except ApiError as error:
            if error.reason is not Reason.NOT_FOUND or not asked.name:
                raise
            if not ignore_not_found:
                session.say(f"error: {error.message}")
                failed = FAILED
            continue
        if batches and batches[-1].kind is asked.kind:
            batches[-1].items += items
        else:
            batches.append(Batch(asked.kind, items, revision))
    return batches, failed


async def _say_nothing_found(session: Session, batches: list[Batch], everywhere: bool) -> None:
    if everywhere or not any(batch.kind.namespaced for batch in batches):
        session.say("No resources found.")
        return
    absent = await objects.absent_namespace(session, session.namespace)
    said = f"No resources found in {session.namespace} namespace"
    session.say(f"{said}: {absent}" if absent else f"{said}.")


def _sorted(items: list[Message], path: str) -> list[Message]:
    from kcore.cli import jsonpath

    path = jsonpath.bare(path)

    def key(message: Message) -> tuple[int, Any, Any]:
        found = jsonpath.find(path, output.plain(message))
        value = found[0] if found else None
        if isinstance(value, bool | int | float):
            return (1, value, ())
        return (0 if value is None else 2, 0, _natural("" if value is None else str(value)))

    return sorted(items, key=key)


def _natural(text: str) -> list[tuple[int, Any]]:
    """Sorts web-2 before web-10, and 900m before 2Gi."""
    from kcore.wire import quantity

    try:
        return [(0, quantity.parse(text))]
    except ValueError:
        parts = re.split("([0-9]+)", text)
        return [(1, int(p)) if i % 2 else (2, p) for i, p in enumerate(parts) if p]


async def _watch(
    session: Session,
    view: View,
    subjects: Sequence[subject.Subject],
    everywhere: bool,
    labels: str,
    fields: str,
    *,
    now_too: bool,
) -> int:
    """Objects as they change, until interrupted."""
    kind: Kind = subjects[0].kind
    names = [s.name for s in subjects if s.name]
    namespace = "" if everywhere else subjects[0].namespace or session.namespace
    if names and now_too:
        for name in names:
            await objects.get(session, kind, namespace, name)
    changes = follow.changes(session, kind, namespace, names=names, labels=labels, fields=fields)
    async with aclosing(changes):
        async for batch in changes:
            if batch.objects and (now_too or batch.live):
                view.lines(kind, batch.objects, batch.types)
                session.stdout.flush()
    raise Exit(FAILED, "error: the watch has ended")
