"""Manifests on their way to the server: one Commit for many, each a transaction of its own.

What a manifest leaves out (its namespace) is filled in; what the server finds wrong is shown in the
file that the object came from.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import click
from google.protobuf.message import Message
from kcore_api.kcore.api.v1 import api_pb2 as pb

from kcore.cli import objects
from kcore.cli.root import code_of
from kcore.cli.session import FAILED, Exit, Session
from kcore.client import manifest
from kcore.client.manifest import Manifest
from kcore.client.problem import Refused
from kcore.wire import errors
from kcore.wire.errors import ApiError, Violation

# Most transactions in one Commit, and their bytes: well below what a message may weigh.
BATCH: Final = 100
BATCH_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one manifest."""

    manifest: Manifest
    # As stored; None where it was refused.
    message: Message | None
    changed: bool = False
    error: ApiError | None = None


async def load(
    session: Session, filenames: Sequence[str], recursive: bool, *, named: bool
) -> list[Manifest]:
    """The manifests of the files, each with its namespace. `named`: each must have a name."""
    if not filenames:
        raise click.UsageError("say what with -f: a file, a directory, or - for standard input")
    catalogue = await session.kinds()
    found = manifest.load(filenames, catalogue, recursive=recursive, stdin=session.stdin.read)
    if not found:
        raise Exit(FAILED, "error: there are no objects in what was given")
    said = []
    for one in found:
        wrong = _placed(session, one, named)
        if wrong is not None:
            said.append(one.show(wrong))
    if said:
        raise Refused(said)
    return found


def selected(manifests: Sequence[Manifest], labels: str) -> list[Manifest]:
    """Those with the labels."""
    if not labels:
        return list(manifests)
    from kcore.wire import selector

    wanted = selector.parse_labels(labels)
    found = [one for one in manifests if wanted.matches(dict(objects.metadata(one.message).labels))]
    if not found:
        raise Exit(FAILED, f"error: no object in what was given has the labels {labels}")
    return found


async def before(session: Session, manifests: Sequence[Manifest]) -> list[Message | None]:
    """The objects as they are."""
    known = [(one.kind, objects.metadata(one.message)) for one in manifests]
    return await asyncio.gather(
        *(objects.find(session, kind, at.namespace, at.name) for kind, at in known)
    )


def apply_operation(one: Manifest, force: bool) -> pb.Operation:
    """Makes the object be as the manifest says. `force`: also what others own."""
    made = operation_on(one)
    made.apply.object = one.message.SerializeToString(deterministic=True)
    made.apply.force = force
    return made


def _placed(session: Session, one: Manifest, named: bool) -> Violation | None:
    """Fills in the namespace; says what is wrong with the object's name or namespace."""
    metadata = objects.metadata(one.message)
    if one.kind.namespaced:
        asked = session.namespace_option
        if not metadata.namespace:
            metadata.namespace = session.namespace
        elif asked and metadata.namespace != asked:
            return Violation("metadata.namespace", f'does not match --namespace "{asked}"')
    if metadata.name:
        return None
    if not metadata.generate_name:
        return Violation("metadata.name", "is not set")
    if named:
        return Violation("metadata.generateName", "cannot use generate name with apply")
    return None


async def submit(
    session: Session,
    manifests: Sequence[Manifest],
    operation: Callable[[Manifest], pb.Operation],
    *,
    dry_run: bool = False,
    manager: str = objects.MANAGER,
) -> list[Outcome]:
    """Commits them in order; refusals are outcomes, not exceptions."""
    outcomes: list[Outcome] = []
    for batch in _batches(manifests):
        transactions = [
            pb.Transaction(
                request_id=session.chance.uid(), manager=manager, operations=[operation(one)]
            )
            for one in batch
        ]
        request = pb.CommitRequest(transactions=transactions, dry_run=dry_run, want=pb.WANT_OBJECTS)
        try:
            answer = await objects.commit(session, request)
        except ApiError as error:
            if len(batch) > 1:
                raise
            outcomes.append(Outcome(batch[0], None, error=error))
            continue
        for one, result in zip(batch, answer.results, strict=True):
            if result.HasField("error"):
                refused = errors.from_status(result.error)
                outcomes.append(Outcome(one, None, error=refused))
                continue
            stored = result.operations[0]
            objects.warn(session, stored)
            outcomes.append(Outcome(one, one.kind.parse(stored.object), stored.changed))
    return outcomes


def _batches(manifests: Sequence[Manifest]) -> list[list[Manifest]]:
    batches: list[list[Manifest]] = []
    size = 0
    for one in manifests:
        weight = one.message.ByteSize()
        if not batches or len(batches[-1]) >= BATCH or size + weight > BATCH_BYTES:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += weight
    return batches


def complain(session: Session, outcome: Outcome) -> int:
    """Says why a manifest was refused; returns the exit code."""
    error, one = outcome.error, outcome.manifest
    assert error is not None
    metadata = objects.metadata(one.message)
    name = metadata.name or metadata.generate_name
    if not error.violations:
        place = one.document.place(one.at)
        where = f"{one.document.name}:{place.line}:{place.column}"
        session.say(f'{where}: {one.kind.singular_resource} "{name}": {error.message}')
    for violation in error.violations:
        session.say(one.show(violation))
    return code_of(error)


def operation_on(one: Manifest) -> pb.Operation:
    """An operation on the manifest's object, with nothing to do yet."""
    metadata = objects.metadata(one.message)
    namespace = metadata.namespace if one.kind.namespaced else ""
    return pb.Operation(
        ref=pb.Ref(kind=one.kind.full_name, namespace=namespace, name=metadata.name)
    )
