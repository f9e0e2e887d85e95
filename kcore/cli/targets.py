"""The objects that a command changes: by name, by selector, all of a kind, or those of files."""

from collections.abc import Sequence

import click
from google.protobuf.message import Message

from kcore.cli import objects, subject
from kcore.cli.session import Session
from kcore.client.kinds import Kind


async def find(
    session: Session,
    words: Sequence[str],
    *,
    filenames: Sequence[str] = (),
    recursive: bool = False,
    everywhere: bool = False,
    labels: str = "",
    fields: str = "",
    all_: bool = False,
    all_by_kind: bool = False,
) -> list[tuple[Kind, Message]]:
    """The objects, as they are now. click.UsageError where it isn't said which.

    `all_`: all of a kind, said by its flag. `all_by_kind`: a kind alone says that, too.
    """
    found: list[tuple[Kind, Message]] = []
    if filenames:
        if words:
            raise click.UsageError("-f and names don't go together")
        from kcore.cli import submit

        for one in await submit.load(session, filenames, recursive, named=True):
            known = objects.metadata(one.message)
            found.append(
                (one.kind, await objects.get(session, one.kind, known.namespace, known.name))
            )
        return found
    for asked in subject.parse(words, await session.kinds()):
        if asked.name:
            if all_ or labels or fields or everywhere:
                raise click.UsageError("a name goes neither with a selector, nor --all, nor -A")
            message = await objects.get(session, asked.kind, session.namespace, asked.name)
            found.append((asked.kind, message))
            continue
        if not (all_ or all_by_kind or labels or fields):
            raise click.UsageError("say which: names, a selector, or --all")
        namespace = "" if everywhere else session.namespace
        listing = await objects.listing(
            session, asked.kind, namespace, labels=labels, fields=fields
        )
        found += [(asked.kind, message) for message in listing.items]
    if not found:
        session.say("No resources found.")
    return found
