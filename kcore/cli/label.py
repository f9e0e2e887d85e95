"""`kcore label` and `kcore annotate`: notes on objects, set (`key=value`) and removed (`key-`)."""

from collections.abc import Sequence
from typing import Any

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects, options, output, subject
from kcore.cli.apply import DRY
from kcore.cli.session import FAILED, Session
from kcore.client.kinds import Kind


def _command(function: Any) -> Any:
    for option in (
        click.argument("words", nargs=-1, metavar="KIND NAME... KEY=VALUE... KEY-..."),
        options.namespace,
        options.everywhere,
        options.selector,
        options.dry_run,
        options.output,
        click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace."),
        click.option("--overwrite", is_flag=True, help="Replace other values, too."),
        click.pass_obj,
    ):
        function = option(function)
    return function


@click.command()
@_command
async def label(session: Session, **given: Any) -> int:
    """Set and remove labels.

    \b
    kcore label pod web tier=front
    kcore label pods --all tier-
    """
    return await _note(session, "labels", "labeled", "unlabeled", **given)


@click.command()
@_command
async def annotate(session: Session, **given: Any) -> int:
    """Set and remove annotations.

    \b
    kcore annotate pod web note="about it"
    kcore annotate pod web note-
    """
    return await _note(session, "annotations", "annotated", "annotated", **given)


async def _note(
    session: Session,
    field: str,
    done: str,
    undone: str,
    *,
    words: Sequence[str],
    all_namespaces: bool,
    labels: str,
    dry_run: str,
    form: str,
    all_: bool,
    overwrite: bool,
) -> int:
    output.check(form, ("name", "yaml", "json"))
    names = [w for w in words if "=" not in w and not w.endswith("-")]
    wanted = _wanted([w for w in words if "=" in w or w.endswith("-")])
    code = 0
    shown: list[dict[str, Any]] = []
    targets = await _targets(session, names, all_namespaces, labels, all_)
    for kind, message in targets:
        metadata = objects.metadata(message)
        now = getattr(metadata, field)
        said = output.name(kind, message)
        taken = [k for k, v in wanted.items() if v is not None and now.get(k, v) != v]
        if taken and not overwrite:
            keys = ", ".join(f'"{k}" is "{now[k]}"' for k in taken)
            session.say(f"error: {said}: {keys}; --overwrite replaces it")
            code = FAILED
            continue
        changes = {k: v for k, v in wanted.items() if (k in now if v is None else now.get(k) != v)}
        result = message
        if changes and dry_run != "client":

            def fill(wanted: Any, changes: dict[str, str | None] = changes) -> None:
                notes = getattr(wanted.metadata, field)
                for key, value in changes.items():
                    if value is not None:
                        notes[key] = value

            paths = [f"metadata.{field}.{key}" for key in sorted(changes)]
            operation = pb.Operation(
                ref=objects.ref(kind, message), patch=objects.merge(kind, paths, fill)
            )
            # Nothing is replaced that was not there to be looked at.
            guards = [] if overwrite else [objects.guard(kind, message)]
            answer = await objects.change(session, operation, guards, dry_run=dry_run == "server")
            result = kind.parse(answer.object)
        if form == "name":
            session.out(said)
        elif form:
            shown.append(output.plain(result))
        else:
            gone = changes and all(v is None for v in changes.values())
            word = (undone if gone else done) if changes else f"not {done}"
            session.out(f"{said} {word}{DRY[dry_run]}")
    if shown:
        session.out(output.text(shown[0] if len(shown) == 1 else output.as_list(shown), form))
    return code


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
    if not wanted:
        raise click.UsageError("say what: key=value to set, key- to remove")
    return wanted


async def _targets(
    session: Session, names: Sequence[str], everywhere: bool, labels: str, all_: bool
) -> list[tuple[Kind, Message]]:
    found: list[tuple[Kind, Message]] = []
    for asked in subject.parse(names, await session.kinds()):
        if asked.name:
            message = await objects.get(session, asked.kind, session.namespace, asked.name)
            found.append((asked.kind, message))
            continue
        if not (all_ or labels):
            raise click.UsageError("say which: names, a selector, or --all")
        namespace = "" if everywhere else session.namespace
        listing = await objects.listing(session, asked.kind, namespace, labels=labels)
        found += [(asked.kind, message) for message in listing.items]
    return found
