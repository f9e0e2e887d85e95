"""`kcore delete`: objects by name, by selector or by manifest; waits until they are gone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import follow, objects, options, subject
from kcore.cli.report import DRY
from kcore.cli.root import code_of
from kcore.cli.session import FAILED, Session
from kcore.client.kinds import Kind
from kcore.wire import errors
from kcore.wire.errors import ApiError, Reason

if TYPE_CHECKING:
    from kcore.client.manifest import Manifest

_CASCADES = {
    "background": pb.PROPAGATION_BACKGROUND,
    "foreground": pb.PROPAGATION_FOREGROUND,
    "orphan": pb.PROPAGATION_ORPHAN,
}
_BATCH = 100


@dataclass(frozen=True, slots=True)
class _Victim:
    kind: Kind
    namespace: str
    name: str

    @property
    def said(self) -> str:
        return f'{self.kind.singular_resource} "{self.name}"'


@click.command()
@click.argument("words", nargs=-1, metavar="KIND NAME... | KIND/NAME...")
@options.filenames
@options.namespace
@options.everywhere
@options.selector
@options.field_selector
@options.dry_run
@click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace.")
@click.option("--grace-period", type=int, default=-1, help="Seconds to end in; -1: its own.")
@click.option("--now", is_flag=True, help="A grace period of one second.")
@click.option("--force", is_flag=True, help="At once, without waiting for a confirmation.")
@click.option("--cascade", type=click.Choice(list(_CASCADES)), default="background",
              help="What becomes of the objects it owns.")  # fmt: skip
@click.option("--wait/--no-wait", "waits", default=True, help="Wait until they are gone.")
@click.option("--timeout", type=options.SECONDS, default=0.0, help="How long; 0: for ever.")
@click.option("--ignore-not-found", is_flag=True, help="What isn't there is no error.")
@click.option("-o", "--output", "form", type=click.Choice(["", "name"]), default="", help="name.")
@click.pass_obj
async def delete(
    session: Session,
    words: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    all_namespaces: bool,
    labels: str,
    fields: str,
    dry_run: str,
    all_: bool,
    grace_period: int,
    now: bool,
    force: bool,
    cascade: str,
    waits: bool,
    timeout: float,
    ignore_not_found: bool,
    form: str,
) -> int:
    """Delete objects.

    \b
    kcore delete pod web-0
    kcore delete -f web.yaml
    kcore delete pods -l app=web
    """
    if now and grace_period >= 0:
        raise click.UsageError("--now and --grace-period don't go together")
    if force and grace_period > 0:
        raise click.UsageError("--force means a grace period of 0")
    if now:
        grace_period = 1
    if force:
        grace_period = 0
        session.say(
            "Warning: immediate deletion does not wait for a confirmation;"
            " the containers may go on running."
        )
    elif grace_period == 0:
        raise click.UsageError("a grace period of 0 also takes --force")
    victims: Sequence[_Victim]
    if filenames:
        victims = await _of_files(session, filenames, recursive)
    else:
        victims = await _of_words(session, words, all_namespaces, labels, fields, all_)
    deletion = pb.Delete(propagation=_CASCADES[cascade])
    if grace_period >= 0:
        deletion.grace_seconds = grace_period
    if dry_run == "client":
        for victim in victims:
            session.out(f"{victim.said} deleted{DRY[dry_run]}")
        return 0
    code = 0
    left: list[tuple[_Victim, Message]] = []
    word = "force deleted" if force else "deleted"
    for start in range(0, len(victims), _BATCH):
        batch = victims[start : start + _BATCH]
        results = await _delete(session, batch, deletion, dry_run == "server")
        for victim, result in zip(batch, results, strict=True):
            if isinstance(result, ApiError):
                if result.reason is Reason.NOT_FOUND and ignore_not_found:
                    continue
                code = max(code, await _complain(session, victim, result))
                continue
            if form == "name":
                session.out(f"{victim.kind.singular_resource}/{victim.name}")
            else:
                session.out(f"{victim.said} {word}{DRY[dry_run]}")
            left.append((victim, result))
    if waits and not force and dry_run == "none" and left:
        session.stdout.flush()
        await follow.within(
            _gone(session, left),
            timeout or None,
            lambda: "error: timed out waiting for the deletion to end",
        )
    if not victims and not ignore_not_found:
        session.say("No resources found.")
    return code


async def gone(
    session: Session, manifests: "Sequence[Manifest]", grace_seconds: int, timeout_seconds: float
) -> None:
    """Deletes the objects of manifests, those that are there, and waits until none is left."""
    deletion = pb.Delete()
    if grace_seconds >= 0:
        deletion.grace_seconds = grace_seconds
    victims = [_victim(one) for one in manifests]
    left: list[tuple[_Victim, Message]] = []
    for start in range(0, len(victims), _BATCH):
        batch = victims[start : start + _BATCH]
        for victim, result in zip(
            batch, await _delete(session, batch, deletion, False), strict=True
        ):
            if not isinstance(result, ApiError):
                session.out(f"{victim.said} deleted")
                left.append((victim, result))
            elif result.reason is not Reason.NOT_FOUND:
                raise result
    await follow.within(
        _gone(session, left),
        timeout_seconds or None,
        lambda: "error: timed out waiting for the deletion to end",
    )


def _victim(one: "Manifest") -> _Victim:
    metadata = objects.metadata(one.message)
    return _Victim(one.kind, objects.namespace_of(one.kind, metadata.namespace), metadata.name)


async def _of_files(session: Session, filenames: Sequence[str], recursive: bool) -> list[_Victim]:
    from kcore.cli import submit

    return [_victim(one) for one in await submit.load(session, filenames, recursive, named=True)]


async def _of_words(
    session: Session,
    words: Sequence[str],
    everywhere: bool,
    labels: str,
    fields: str,
    all_: bool,
) -> list[_Victim]:
    subjects = subject.parse(words, await session.kinds())
    victims = []
    for asked in subjects:
        if asked.name:
            if all_ or labels or fields or everywhere:
                raise click.UsageError("a name goes neither with a selector, nor --all, nor -A")
            namespace = objects.namespace_of(asked.kind, session.namespace)
            victims.append(_Victim(asked.kind, namespace, asked.name))
            continue
        if not (all_ or labels or fields):
            raise click.UsageError("say which: names, a selector, or --all")
        namespace = "" if everywhere else session.namespace
        listing = await objects.listing(
            session, asked.kind, namespace, labels=labels, fields=fields
        )
        for message in listing.items:
            metadata = objects.metadata(message)
            victims.append(_Victim(asked.kind, metadata.namespace, metadata.name))
    return victims


async def _delete(
    session: Session, victims: Sequence[_Victim], deletion: pb.Delete, dry_run: bool
) -> list[Message | ApiError]:
    transactions = [
        objects.transaction(
            session,
            [
                pb.Operation(
                    ref=pb.Ref(kind=v.kind.full_name, namespace=v.namespace, name=v.name),
                    delete=deletion,
                )
            ],
        )
        for v in victims
    ]
    request = pb.CommitRequest(transactions=transactions, dry_run=dry_run, want=pb.WANT_OBJECTS)
    try:
        answer = await objects.commit(session, request)
    except ApiError as error:
        if len(victims) > 1:
            raise
        return [error]
    found: list[Message | ApiError] = []
    for victim, result in zip(victims, answer.results, strict=True):
        if result.HasField("error"):
            found.append(errors.from_status(result.error))
        else:
            objects.warn(session, result.operations[0])
            found.append(victim.kind.parse(result.operations[0].object))
    return found


async def _complain(session: Session, victim: _Victim, error: ApiError) -> int:
    if error.reason is Reason.NOT_FOUND:
        error = await objects.missing(session, victim.kind, victim.namespace, victim.name)
        session.say(f"error: {error.message}")
        return FAILED
    session.say(f"error: {victim.said}: {error.message}")
    return code_of(error)


async def _gone(session: Session, left: Sequence[tuple[_Victim, Message]]) -> None:
    """Waits until none of them is there any more; a namesake made since does not count."""

    async def one(victim: _Victim, message: Message) -> None:
        uid = objects.metadata(message).uid

        def gone(now: Message | None) -> bool:
            return now is None or (bool(uid) and objects.metadata(now).uid != uid)

        await follow.until(session, victim.kind, victim.namespace, victim.name, gone)

    limit = asyncio.Semaphore(32)

    async def bounded(victim: _Victim, message: Message) -> None:
        async with limit:
            if await objects.find(session, victim.kind, victim.namespace, victim.name) is None:
                return
            await one(victim, message)

    await asyncio.gather(*(bounded(victim, message) for victim, message in left))
