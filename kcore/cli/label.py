"""`kcore label` and `kcore annotate`: notes on objects, set (`key=value`) and removed (`key-`)."""

from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects, options, output, targets
from kcore.cli.report import Report
from kcore.cli.session import FAILED, Session, harmless
from kcore.client.kinds import Kind


def _command(function: Any) -> Any:
    for option in (
        click.argument("words", nargs=-1, metavar="KIND NAME... KEY=VALUE... KEY-..."),
        options.filenames,
        options.namespace,
        options.everywhere,
        options.selector,
        options.field_selector,
        options.dry_run,
        options.output,
        options.manager,
        click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace."),
        click.option("--overwrite", is_flag=True, help="Replace other values, too."),
        click.option("--list", "lists", is_flag=True, help="Show what there is afterwards."),
        click.option("--resource-version", "version", default=0,
                     help="Only while this is the object's."),
        click.pass_obj,
    ):  # fmt: skip
        function = option(function)
    return function


@click.command()
@_command
async def label(session: Session, **given: Any) -> int:
    """Set and remove labels.

    \b
    kcore label pod web-0 tier=front
    kcore label pod web-0 tier=back --overwrite
    kcore label pods --all tier-
    kcore label deploy web --list
    """
    return await _note(session, "labels", "labeled", "unlabeled", **given)


@click.command()
@_command
async def annotate(session: Session, **given: Any) -> int:
    """Set and remove annotations.

    \b
    kcore annotate pod web-0 note="about it"
    kcore annotate pod web-0 note-
    """
    return await _note(session, "annotations", "annotated", "annotated", **given)


async def _note(
    session: Session,
    field: str,
    done: str,
    undone: str,
    *,
    words: Sequence[str],
    filenames: tuple[str, ...],
    recursive: bool,
    all_namespaces: bool,
    labels: str,
    fields: str,
    dry_run: str,
    form: str,
    manager: str,
    all_: bool,
    overwrite: bool,
    lists: bool,
    version: int,
) -> int:
    form = output.check(form)
    names = [w for w in words if "=" not in w and not w.endswith("-")]
    wanted = _wanted([w for w in words if "=" in w or w.endswith("-")])
    if not wanted and not lists:
        raise click.UsageError("say what: key=value to set, key- to remove")
    code = 0
    report = Report(session, form, dry_run)
    found = await targets.find(
        session,
        names,
        filenames=filenames,
        recursive=recursive,
        everywhere=all_namespaces,
        labels=labels,
        fields=fields,
        all_=all_,
    )
    for kind, message in found:
        now = getattr(objects.metadata(message), field)
        taken = [k for k, v in wanted.items() if v is not None and now.get(k, v) != v]
        if taken and not overwrite:
            keys = ", ".join(f'"{k}" is "{now[k]}"' for k in taken)
            session.say(f"error: {output.name(kind, message)}: {keys}; --overwrite replaces it")
            code = FAILED
            continue
        changes = {k: v for k, v in wanted.items() if (k in now if v is None else now.get(k) != v)}
        result = message
        if changes and dry_run != "client":
            # Nothing is replaced that was not there to be looked at.
            guards = [] if overwrite else [objects.guard(kind, message)]
            if version:
                guards = [pb.Guard(ref=objects.ref(kind, message), revision=version)]
            operation = pb.Operation(
                ref=objects.ref(kind, message), patch=_patch(kind, field, changes)
            )
            answer = await objects.change(
                session, operation, guards, dry_run=dry_run == "server", manager=manager
            )
            result = kind.parse(answer.object)
        if lists:
            _list(session, kind, result, field)
            continue
        gone = changes and all(v is None for v in changes.values())
        report.add(kind, result, (undone if gone else done) if changes else f"not {done}")
    report.end(one=len(found) == 1)
    return code


def _patch(kind: Kind, field: str, changes: dict[str, str | None]) -> pb.Patch:
    def fill(wanted: Any) -> None:
        notes = getattr(wanted.metadata, field)
        for key, value in changes.items():
            if value is not None:
                notes[key] = value

    return objects.merge(kind, [f"metadata.{field}.{key}" for key in sorted(changes)], fill)


def _list(session: Session, kind: Kind, message: Message, field: str) -> None:
    session.out(f"Listing {field} for {output.name(kind, message)}:")
    for key, value in sorted(getattr(objects.metadata(message), field).items()):
        session.out(f" {key}={harmless(value)}")


def _wanted(words: Sequence[str]) -> dict[str, str | None]:
    """Values by key; None: to be removed."""
    wanted: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            key = key.removesuffix("-")
        if not key:
            raise click.UsageError(f'"{word}" has no key')
        if key in wanted:
            raise click.UsageError(f'the key "{key}" is given twice')
        wanted[key] = value if equals else None
    return wanted
