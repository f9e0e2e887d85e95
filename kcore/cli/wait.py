"""`kcore wait`: until objects are there, gone, have a condition or a value."""

import asyncio
from collections.abc import Callable
from typing import Any

import click
from google.protobuf.message import Message

from kcore.cli import follow, jsonpath, objects, options, output, subject
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import codec

Holds = Callable[[Message | None], bool]


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="KIND NAME... | KIND/NAME... | KIND")
@options.namespace
@options.everywhere
@options.selector
@options.field_selector
@click.option("--for", "condition", required=True,
              help="condition=NAME[=VALUE], delete, create, jsonpath={PATH}[=VALUE].")  # fmt: skip
@click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace.")
@click.option("--timeout", type=options.SECONDS, default=30.0, show_default=True,
              help="How long; 0: look once.")  # fmt: skip
@click.pass_obj
async def wait(
    session: Session,
    words: tuple[str, ...],
    all_namespaces: bool,
    labels: str,
    fields: str,
    condition: str,
    all_: bool,
    timeout: float,
) -> int:
    """Wait until objects are in a state; exit code 3 when they are not in time.

    \b
    kcore wait deploy/web --for=condition=Available --timeout=2m
    kcore wait pod/web-1 --for=delete
    kcore wait pod/web-0 --for=jsonpath='{.status.phase}'=Running
    """
    holds = _condition(condition)
    waiting: set[str] = set()

    async def one(asked: subject.Subject, namespace: str) -> None:
        if condition not in ("delete", "create"):
            await objects.get(session, asked.kind, namespace, asked.name)
        waiting.add(str(asked))
        last = await follow.until(session, asked.kind, namespace, asked.name, _or_gone(holds))
        if last is None and condition != "delete":
            raise Exit(FAILED, f"error: {asked} was deleted")
        waiting.discard(str(asked))
        met = "deleted" if condition == "delete" else "condition met"
        session.out(f"{asked} {met}")
        session.stdout.flush()

    def _or_gone(inner: Holds) -> Holds:
        seen = False

        def check(message: Message | None) -> bool:
            nonlocal seen
            if condition == "create":
                return message is not None
            seen = seen or message is not None
            return inner(message) or (message is None and seen)

        return check

    async def everything() -> None:
        targets = await _targets(session, words, all_namespaces, labels, fields, all_)
        if not targets and condition != "delete":
            raise Exit(FAILED, "error: no matching resources found")
        await asyncio.gather(*(one(asked, namespace) for asked, namespace in targets))

    await follow.within(
        everything(),
        max(timeout, 0.05) if timeout >= 0 else None,
        lambda: f"error: timed out waiting for {condition} on {', '.join(sorted(waiting))}",
    )
    return 0


async def _targets(
    session: Session,
    words: tuple[str, ...],
    everywhere: bool,
    labels: str,
    fields: str,
    all_: bool,
) -> list[tuple[subject.Subject, str]]:
    found: list[tuple[subject.Subject, str]] = []
    for asked in subject.parse(words, await session.kinds()):
        if asked.name:
            found.append((asked, session.namespace))
            continue
        if not (all_ or labels or fields or everywhere):
            raise click.UsageError("say which: names, a selector, or --all")
        namespace = "" if everywhere else session.namespace
        listing = await objects.listing(
            session, asked.kind, namespace, labels=labels, fields=fields
        )
        for message in listing.items:
            metadata = objects.metadata(message)
            found.append((subject.Subject(asked.kind, metadata.name), metadata.namespace))
    return found


def _condition(text: str) -> Holds:
    form, equals, rest = text.partition("=")
    if form == "condition" and rest:
        name, _, value = rest.partition("=")
        return _has_condition(name.lower(), (value or "True").lower())
    if form == "jsonpath" and equals:
        path, closing, value = rest.rpartition("}")
        if not closing:
            raise click.UsageError("--for=jsonpath takes a path in braces: '{.status.phase}'")
        jsonpath.render(path + "}", {})
        return _has_value(path + "}", value.removeprefix("=") if value else None)
    if text == "delete":
        return lambda message: message is None
    if text == "create":
        return lambda message: message is not None
    raise click.UsageError(
        f'--for takes condition=NAME, delete, create or jsonpath={{PATH}}=VALUE, not "{text}"'
    )


def _has_condition(name: str, value: str) -> Holds:
    def holds(message: Message | None) -> bool:
        if message is None:
            return False
        plain = codec.to_plain(message)
        status: dict[str, Any] = plain.get("status") or {}
        observed = status.get("observedGeneration")
        if observed is not None and observed < plain["metadata"].get("generation", 0):
            return False
        return any(
            str(c.get("type", "")).lower() == name and str(c.get("status", "")).lower() == value
            for c in status.get("conditions") or []
        )

    return holds


def _has_value(path: str, value: str | None) -> Holds:
    def holds(message: Message | None) -> bool:
        if message is None:
            return False
        found = jsonpath.render(path, output.plain(message))
        return bool(found) if value is None else found == value

    return holds
